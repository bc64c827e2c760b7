"""The token exchange of a sign-in, after its authorization response, in the order of Core 3.1.3."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._internal import randomness, request_secrets
from ..audit.events import Origin
from ..claims import minimization
from ..config.claims import ClaimDeclaration
from ..oidc.client_auth import AssertionFreshness
from ..oidc.id_token import VerifiedClaims, find_auth_time, validate_pairwise_sub, verify_id_token
from ..oidc.token import (
    ReceivedToken,
    TokenResponse,
    build_token_request,
    extract_received_tokens,
    process_token_response,
)
from ..oidc.userinfo import build_userinfo_request, process_userinfo_response
from ..provider.call_limit import limit_total_time
from ..provider.registry import Provider
from ..sessions.tasks import INLINE_SECONDS, revoke_received_tokens
from .state_cookie import AuthorizationState, is_issued_nonce

PROVIDER_TIMEOUT_SECONDS = 8.0
"""For each call to the provider at sign-in."""
CALLBACK_SECONDS = 16.0
"""For all calls of a callback together. With the revocation of refused tokens, the user waits for less than 20 s."""
MAX_AMR_VALUES = 16
_AMR_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSignIn:
    """A sign-in that was verified: the only credentials that OIDCAuthenticationBackend accepts."""

    provider: str
    issuer: str
    sub: str = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    """The declared claims. Host code gets no others."""
    origin: Origin = field(repr=False)
    auth_time: datetime | None = None
    """When the person authenticated at the provider; None if the ID Token does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExchangeResult:
    """The verified result of a code exchange."""

    id_token_claims: VerifiedClaims = field(repr=False)
    tokens: TokenResponse
    claims: Mapping[str, Any] = field(repr=False)
    undeclared_claims: tuple[str, ...]
    """Names of received claims that are not declared."""
    offered_acr_values: tuple[str, ...] = ()
    """`acr_values_supported` of the provider."""

    @property
    def sid(self) -> str:
        return str(self.id_token_claims.get("sid", ""))

    @property
    def acr(self) -> str:
        """The ID Token's acr; empty when it is too long to store, which R6 refuses if acr was requested."""
        acr = self.id_token_claims.get("acr")
        return acr if isinstance(acr, str) and len(acr) <= 255 else ""

    @property
    def amr(self) -> list[str]:
        """The methods of the authentication (RFC 8176) for the audit log; none if it is not a list of short names."""
        amr = self.id_token_claims.get("amr")
        if not isinstance(amr, list) or len(amr) > MAX_AMR_VALUES:
            return []
        return amr if all(isinstance(value, str) and _AMR_PATTERN.fullmatch(value) for value in amr) else []

    @property
    def auth_time(self) -> datetime | None:
        return find_auth_time(self.id_token_claims)


@contextmanager
def revoke_tokens_on_error(issued_tokens: list[ReceivedToken], *, provider: str) -> Iterator[None]:
    """On any exception, queue the tokens for revocation and try to revoke them, then raise it again."""
    try:
        yield
    except BaseException:
        if issued_tokens:
            # Also when the callback has used up its time.
            with limit_total_time(INLINE_SECONDS):
                revoke_received_tokens(issued_tokens, provider=provider)
        raise


def exchange_code(
    code: str,
    *,
    provider: Provider,
    pending: AuthorizationState,
    declared_claims: Mapping[str, ClaimDeclaration],
    issued_tokens: list[ReceivedToken],
    clock: Callable[[], datetime],
) -> TokenExchangeResult:
    """Exchange the code, verify the tokens, and return them with the minimized claims. The code is sent once.

    issued_tokens: gets every received token, whether or not the response is accepted. Requires: no open transaction.
    Raises: SignInRefused. Spec: OIDC Core 3.1.3, 5.3.
    """
    declaration = provider.declaration
    metadata = provider.get_metadata(timeout_seconds=PROVIDER_TIMEOUT_SECONDS)
    request = build_token_request(
        metadata=metadata,
        declaration=declaration,
        code=code,
        redirect_uri=pending.redirect_uri,
        code_verifier=pending.code_verifier,
        freshness=AssertionFreshness(now=clock(), jti=randomness.token_b64url(32)),
    )
    response = provider.transport.send(request, timeout_seconds=PROVIDER_TIMEOUT_SECONDS)
    issued_tokens.extend(extract_received_tokens(response))
    for token in issued_tokens:
        request_secrets.register_secret(token.value, token.token_type_hint)
    tokens = process_token_response(response, declaration=declaration)
    request_secrets.register_secret(tokens.id_token, "id_token")
    keys = provider.get_key_set(timeout_seconds=PROVIDER_TIMEOUT_SECONDS, source="provider")
    id_claims = verify_id_token(
        tokens.id_token,
        keys=keys,
        declaration=declaration,
        expected_nonce=pending.nonce,
        is_issued_nonce=is_issued_nonce,
        access_token=tokens.access_token,
        now=clock(),
    )
    claims = dict(id_claims)
    if minimization.needs_userinfo(id_claims, declared_claims) and metadata.userinfo_endpoint:
        access_token = tokens.access_token
        request = build_userinfo_request(metadata=metadata, declaration=declaration, access_token=access_token)
        response = provider.transport.send(request, timeout_seconds=PROVIDER_TIMEOUT_SECONDS)
        userinfo = process_userinfo_response(
            response, expected_sub=id_claims["sub"], keys=keys, declaration=declaration, now=clock()
        )
        claims = {**userinfo, **{name: value for name, value in id_claims.items() if not minimization.is_empty(value)}}
        if declaration.subject_type == "pairwise":
            validate_pairwise_sub(claims)
    minimized = minimization.minimize(claims, declared_claims)
    # Masked wherever they occur, but not searched for in redirects: a role such as "nurse" may be part of a URL.
    secrets = [minimized.kept, id_claims["sub"], id_claims.get("sid")]
    request_secrets.register_secret(secrets, "claim", location="anywhere")
    minimization.validate_essential_claims(minimized.kept, declared_claims)
    return TokenExchangeResult(
        id_token_claims=id_claims,
        tokens=tokens,
        claims=minimized.kept,
        undeclared_claims=minimized.undeclared_claims,
        offered_acr_values=metadata.acr_values_supported,
    )
