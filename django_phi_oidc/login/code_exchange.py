"""The steps of a sign-in after its authorization response, in the order of Core 3.1.3.

`exchange` talks to the OP and no transaction is open; `open_session` writes, in one transaction, and talks to nobody.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._internal import randomness, request_secrets
from ..audit.events import Action, AuthenticatedEvent, NewEvent, Origin
from ..audit.outbox import record_with_deferred
from ..claims import minimization
from ..claims.storage import store_claims
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
from ..provider.registry import Provider
from ..sessions.lifecycle import start_session
from ..sessions.tasks import revoke_received_tokens
from ..subjects.models import PairwiseSubject
from .state_cookie import AuthorizationState, is_issued_nonce

PROVIDER_TIMEOUT_SECONDS = 8.0
"""Seconds for each call to the OP at sign-in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSignIn:
    """A person whom the OP vouched for: the only thing that the authentication backend answers to."""

    provider: str
    issuer: str
    sub: str = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    """The declared claims; nothing else reaches a host project's code."""
    origin: Origin = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExchangeResult:
    """What the OP gave for a code, all checks passed."""

    id_token_claims: VerifiedClaims = field(repr=False)
    tokens: TokenResponse
    claims: Mapping[str, Any] = field(repr=False)
    undeclared_claims: tuple[str, ...]
    """Names of claims that came undeclared."""


@contextmanager
def revoke_tokens_on_error(issued_tokens: list[ReceivedToken], *, provider: str) -> Iterator[None]:
    """Whatever exception leaves the block, the tokens in received are queued for revocation, and tried, first."""
    try:
        yield
    except BaseException:
        if issued_tokens:
            revoke_received_tokens(issued_tokens, provider=provider)
        raise


def exchange_code(
    code: str,
    *,
    provider: Provider,
    authorization_state: AuthorizationState,
    declared_claims: Mapping[str, ClaimDeclaration],
    issued_tokens: list[ReceivedToken],
    clock: Callable[[], datetime],
) -> TokenExchangeResult:
    """Return what the OP gives for the code, which is sent once.

    received: filled with every token as soon as it is here, whether or not the answer is accepted.
    Raises: SignInRefused. Spec: OIDC Core 3.1.3, 5.3.
    """
    declaration = provider.declaration
    metadata = provider.get_metadata(deadline=PROVIDER_TIMEOUT_SECONDS)
    request = build_token_request(
        metadata=metadata,
        declaration=declaration,
        code=code,
        redirect_uri=authorization_state.redirect_uri,
        code_verifier=authorization_state.code_verifier,
        freshness=AssertionFreshness(now=clock(), jti=randomness.token_b64url(32)),
    )
    response = provider.transport.send(request, deadline=PROVIDER_TIMEOUT_SECONDS)
    issued_tokens.extend(extract_received_tokens(response))
    for token in issued_tokens:
        request_secrets.register_secret(token.value, token.token_type_hint)
    tokens = process_token_response(response, declaration=declaration)
    request_secrets.register_secret(tokens.id_token, "id_token")
    keys = provider.get_key_set(deadline=PROVIDER_TIMEOUT_SECONDS)
    id_claims = verify_id_token(
        tokens.id_token,
        keys=keys,
        declaration=declaration,
        expected_nonce=authorization_state.nonce,
        is_issued_nonce=is_issued_nonce,
        access_token=tokens.access_token,
        now=clock(),
    )
    arrived = dict(id_claims)
    if minimization.needs_userinfo(id_claims, declared_claims) and metadata.userinfo_endpoint:
        userinfo_request = build_userinfo_request(
            metadata=metadata, declaration=declaration, access_token=tokens.access_token
        )
        userinfo = process_userinfo_response(
            provider.transport.send(userinfo_request, deadline=PROVIDER_TIMEOUT_SECONDS),
            expected_sub=id_claims["sub"],
            keys=keys,
            declaration=declaration,
            now=clock(),
        )
        arrived = {**userinfo, **{name: value for name, value in id_claims.items() if not minimization.is_empty(value)}}
        if declaration.subject_type == "pairwise":
            validate_pairwise_sub(arrived)
    minimized = minimization.minimize(arrived, declared_claims)
    # Not looked for in the response: a page for nurses may be where whoever claims to be one is led to.
    request_secrets.register_secret(
        [minimized.kept, id_claims["sub"], id_claims.get("sid")], "claim", location="anywhere"
    )
    minimization.validate_essential_claims(minimized.kept, declared_claims)
    return TokenExchangeResult(
        id_token_claims=id_claims, tokens=tokens, claims=minimized.kept, undeclared_claims=minimized.undeclared_claims
    )


def create_session_with_claims(
    exchange_result: TokenExchangeResult,
    *,
    session_id: uuid.UUID,
    subject: PairwiseSubject,
    provider: Provider,
    declared_claims: Mapping[str, ClaimDeclaration],
    django_session_key: str,
    origin: Origin,
    now: datetime,
) -> tuple[str, ...]:
    """Write the session and its claims inside the caller's transaction; return the names of the claims kept."""
    declaration = provider.declaration
    id_claims = exchange_result.id_token_claims
    start_session(
        session_id=session_id,
        user=subject.user,
        subject=subject,
        provider=declaration.name,
        issuer=declaration.issuer,
        sid=str(id_claims.get("sid", "")),
        tokens=exchange_result.tokens,
        django_session_key=django_session_key,
        auth_time=find_auth_time(id_claims),
        acr=parse_acr(id_claims),
        now=now,
        persist_tokens=declaration.tokens == "keep",
    )
    return store_claims(
        exchange_result.claims,
        declared_claims=declared_claims,
        subject=subject,
        session_id=session_id,
        origin=origin,
        provider=declaration.name,
        now=now,
    )


def record_login_succeeded(
    exchange_result: TokenExchangeResult,
    *,
    subject: PairwiseSubject,
    provider: Provider,
    stored_claims: tuple[str, ...],
    change_events: Sequence[AuthenticatedEvent],
    origin: Origin,
    now: datetime,
) -> None:
    """Commit the event that permits the sign-in, and what else there is to say of it, in one statement.

    changes: the events of what open_session wrote, which the permit takes out of the outbox.
    Raises: AuditUnavailable: the caller ends the session then.
    """
    told: dict[str, Any] = {
        "origin": origin,
        "now": now,
        "provider": provider.declaration.name,
        "subject": str(subject.uuid),
    }
    detail = {"acr": parse_acr(exchange_result.id_token_claims), "claims": list(stored_claims)}
    acts = [NewEvent(action=Action.LOGIN_SUCCEEDED, detail=detail, **told)]
    if exchange_result.undeclared_claims:
        acts.append(
            NewEvent(
                action=Action.CLAIM_OVERFETCHED, detail={"claims": list(exchange_result.undeclared_claims)}, **told
            )
        )
    if exchange_result.tokens.lifetime_alert:
        acts.append(NewEvent(action=Action.ALERT_RAISED, detail={"rule": "access_token_lifetime"}, **told))
    record_with_deferred(change_events, acts)


def parse_acr(id_token_claims: VerifiedClaims) -> str:
    """Return the ID Token's acr; empty when it can't be kept, which R6 has refused where acr was asked for."""
    acr = id_token_claims.get("acr")
    return acr if isinstance(acr, str) and len(acr) <= 255 else ""


def create_session_id() -> uuid.UUID:
    """Return an unpredictable id for an OIDC session."""
    return uuid.UUID(bytes=randomness.token_bytes(16), version=4)
