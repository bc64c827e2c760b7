"""The token exchange of a sign-in, after its authorization response, in the order of Core 3.1.3."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._internal import randomness, request_secrets
from ..access.policy import STEP_UP_CODES
from ..audit.events import Origin
from ..claims import minimization
from ..config.claims import ClaimDeclaration
from ..config.providers import AMR_PATTERN
from ..errors import IDTokenError, RuleCode
from ..extensions import AccountSource
from ..http.transport import TransportRequest
from ..oidc.client_auth import AssertionFreshness
from ..oidc.dpop import ProofKey, create_proof_key
from ..oidc.id_token import (
    VerifiedClaims,
    find_auth_time,
    find_vector_of_trust,
    validate_pairwise_sub,
    verify_id_token,
)
from ..oidc.jose import parse_compact_jws
from ..oidc.jwks import KeySet
from ..oidc.token import (
    ReceivedToken,
    TokenResponse,
    build_token_request,
    extract_received_tokens,
    list_accepted_token_types,
    process_token_response,
)
from ..oidc.userinfo import build_userinfo_request, process_userinfo_response
from ..provider.call_limit import limit_total_time
from ..provider.dpop_requests import send_with_proof
from ..provider.registry import Provider
from ..sessions.tasks import INLINE_SECONDS, revoke_received_tokens
from .state_cookie import AuthorizationState, is_issued_nonce

PROVIDER_TIMEOUT_SECONDS = 8.0
"""For each call to the provider at sign-in."""
CALLBACK_SECONDS = 16.0
"""For all calls of a callback together. With the revocation of refused tokens, the user waits for
less than 20 s.
"""
MAX_AMR_VALUES = 16


class IdentifiedSignInRefused(IDTokenError):
    """A valid ID Token names the person, whose authentication is too weak or too old."""

    def __init__(self, code: RuleCode, *, sub: str) -> None:
        super().__init__(code)
        self.sub = sub


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSignIn:
    """A sign-in that was verified: the only credentials that OIDCAuthenticationBackend accepts."""

    provider: str
    issuer: str
    sub: str = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    """The declared claims. Host code gets no others."""
    origin: Origin = field(repr=False)
    account_identifier: str = field(repr=False, default="")
    """Only for the link of a first sign-in: host code does not get it, and it is not stored."""
    auth_time: datetime | None = None
    """When the person authenticated at the provider; None if the ID Token does not say."""


def _is_amr_value(value: Any) -> bool:
    return isinstance(value, str) and AMR_PATTERN.fullmatch(value) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExchangeResult:
    """The verified result of a code exchange."""

    id_token_claims: VerifiedClaims = field(repr=False)
    tokens: TokenResponse
    claims: Mapping[str, Any] = field(repr=False)
    undeclared_claims: tuple[str, ...]
    """Names of received claims that are neither declared nor requested."""
    account_identifier: str = field(repr=False, default="")
    """What the account source found in the claims; empty without a source."""
    vot: str = ""
    """The vector of trust under the declared trust mark; empty if there is none."""
    offered_acr_values: tuple[str, ...] = ()
    """`acr_values_supported` of the provider."""
    dpop_seed: str = field(repr=False, default="")
    """Of the key that the tokens are bound to; empty for Bearer tokens."""

    @property
    def sid(self) -> str:
        return str(self.id_token_claims.get("sid", ""))

    @property
    def acr(self) -> str:
        """The ID Token's acr; empty when it is too long to store, which R6 refuses if acr was
        requested.
        """
        acr = self.id_token_claims.get("acr")
        if isinstance(acr, str) and len(acr) <= 255:
            return acr
        return ""

    @property
    def amr(self) -> list[str]:
        """The methods of the authentication (RFC 8176) for the audit log; none if it is not a list
        of short names.
        """
        amr = self.id_token_claims.get("amr")
        if not isinstance(amr, list) or len(amr) > MAX_AMR_VALUES:
            return []

        if not all(_is_amr_value(value) for value in amr):
            return []
        return amr

    @property
    def assurance_detail(self) -> dict[str, Any]:
        """What events say about the level of the sign-in."""
        detail: dict[str, Any] = {"acr": self.acr}
        further = {"amr": self.amr, "vot": self.vot}
        for name, value in further.items():
            if value:
                detail[name] = value
        return detail

    @property
    def auth_time(self) -> datetime | None:
        return find_auth_time(self.id_token_claims)


@contextmanager
def revoke_tokens_on_error(issued_tokens: list[ReceivedToken], *, provider: str) -> Iterator[None]:
    """On any exception, queue the tokens for revocation and try to revoke them, then raise it
    again.
    """
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
    account_source: AccountSource | None = None,
    issued_tokens: list[ReceivedToken],
    clock: Callable[[], datetime],
) -> TokenExchangeResult:
    """Exchange the code, verify the tokens, and return them with the minimized claims. The code is
    sent once.

    account_source: reads claims that are neither kept nor reported unless they are declared.
    issued_tokens: gets every received token, whether or not the response is accepted. Requires: no
    open transaction.
    Raises: SignInRefused. Spec: OIDC Core 3.1.3, 5.3; RFC 9449 5.
    """
    declaration = provider.declaration
    metadata = provider.get_metadata(timeout_seconds=PROVIDER_TIMEOUT_SECONDS)

    proof_key = None
    if pending.dpop_seed:
        proof_key = create_proof_key(pending.dpop_seed)

    tokens = _request_tokens(
        code,
        provider=provider,
        pending=pending,
        proof_key=proof_key,
        issued_tokens=issued_tokens,
        clock=clock,
    )
    keys = provider.get_key_set(timeout_seconds=PROVIDER_TIMEOUT_SECONDS, source="provider")
    try:
        id_claims = verify_id_token(
            tokens.id_token,
            keys=keys,
            declaration=declaration,
            expected_nonce=pending.nonce,
            is_issued_nonce=is_issued_nonce,
            access_token=tokens.access_token,
            now=clock(),
        )
    except IDTokenError as error:
        if error.code not in STEP_UP_CODES:
            raise
        # Everything before the level of the authentication was verified, the person too.
        raise IdentifiedSignInRefused(
            error.code, sub=parse_compact_jws(tokens.id_token).payload["sub"]
        ) from None
    userinfo: Mapping[str, Any] = {}
    transient_claims: Collection[str] = ()
    if account_source is not None:
        transient_claims = account_source.claims
    wanted = [*declared_claims, *transient_claims]
    if minimization.needs_userinfo(id_claims, wanted) and metadata.userinfo_endpoint:
        userinfo = _request_userinfo(
            tokens,
            provider=provider,
            proof_key=proof_key,
            expected_sub=id_claims["sub"],
            keys=keys,
            clock=clock,
        )

    claims = dict(userinfo)
    for name, value in id_claims.items():
        if not minimization.is_empty(value):
            claims[name] = value

    if userinfo and declaration.subject_type == "pairwise":
        validate_pairwise_sub(claims)
    minimized = minimization.minimize(claims, declared_claims)

    account_identifier = ""
    if account_source is not None:
        account_identifier = account_source.find_identifier(id_claims, userinfo)

    # Masked wherever they occur, but not searched for in redirects: a role such as "nurse" may be
    # part of a URL.
    secrets = [minimized.kept, id_claims["sub"], id_claims.get("sid"), account_identifier]
    request_secrets.register_secret(secrets, "claim", location="anywhere")
    minimization.validate_essential_claims(minimized.kept, declared_claims)

    undeclared_claims = []
    for name in minimized.undeclared_claims:
        if name not in transient_claims:
            undeclared_claims.append(name)

    return TokenExchangeResult(
        id_token_claims=id_claims,
        tokens=tokens,
        claims=minimized.kept,
        undeclared_claims=tuple(undeclared_claims),
        account_identifier=account_identifier,
        vot=find_vector_of_trust(id_claims, vtm=declaration.vtm),
        offered_acr_values=metadata.acr_values_supported,
        dpop_seed=pending.dpop_seed if tokens.token_type == "DPoP" else "",
    )


def _request_tokens(
    code: str,
    *,
    provider: Provider,
    pending: AuthorizationState,
    proof_key: ProofKey | None,
    issued_tokens: list[ReceivedToken],
    clock: Callable[[], datetime],
) -> TokenResponse:
    """Send the code, and once more if the provider requires its nonce in the proof."""
    declaration = provider.declaration
    metadata = provider.get_metadata(timeout_seconds=PROVIDER_TIMEOUT_SECONDS)

    def build_request() -> TransportRequest:
        return build_token_request(
            metadata=metadata,
            declaration=declaration,
            code=code,
            redirect_uri=pending.redirect_uri,
            code_verifier=pending.code_verifier,
            freshness=AssertionFreshness(now=clock(), jti=randomness.token_b64url(32)),
        )

    request_secrets.register_secret(pending.dpop_seed, "dpop_seed")
    response = send_with_proof(
        build_request,
        transport=provider.transport,
        key=proof_key,
        clock=clock,
        timeout_seconds=PROVIDER_TIMEOUT_SECONDS,
    )
    issued_tokens.extend(extract_received_tokens(response))
    for token in issued_tokens:
        request_secrets.register_secret(token.value, token.token_type_hint)
    token_types = list_accepted_token_types(declaration, has_proof=proof_key is not None)
    tokens = process_token_response(response, declaration=declaration, token_types=token_types)
    request_secrets.register_secret(tokens.id_token, "id_token")
    return tokens


def _request_userinfo(
    tokens: TokenResponse,
    *,
    provider: Provider,
    proof_key: ProofKey | None,
    expected_sub: str,
    keys: KeySet,
    clock: Callable[[], datetime],
) -> Mapping[str, Any]:
    declaration = provider.declaration
    request = build_userinfo_request(
        metadata=provider.get_metadata(timeout_seconds=PROVIDER_TIMEOUT_SECONDS),
        declaration=declaration,
        access_token=tokens.access_token,
        token_type=tokens.token_type,
    )
    response = send_with_proof(
        lambda: request,
        transport=provider.transport,
        key=proof_key if tokens.token_type == "DPoP" else None,
        clock=clock,
        timeout_seconds=PROVIDER_TIMEOUT_SECONDS,
        access_token=tokens.access_token,
    )
    return process_userinfo_response(
        response, expected_sub=expected_sub, keys=keys, declaration=declaration, now=clock()
    )
