"""The steps of a sign-in after its authorization response, in the order of Core 3.1.3.

`exchange` talks to the OP and no transaction is open; `open_session` writes, in one transaction, and talks to nobody.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .. import entropy, secrecy
from ..audit.events import Act, Action, Finished, Origin
from ..audit.outbox import record_with
from ..claims import catalog
from ..claims.storing import store
from ..declarations import ClaimDeclaration
from ..oidc.client_auth import Freshness
from ..oidc.id_token import VerifiedClaims, auth_time_of, check_sub_not_pairwise, verify_id_token
from ..oidc.token import ReceivedToken, TokenResponse, build_code_request, judge_token_response, received_tokens
from ..oidc.userinfo import build_userinfo_request, judge_userinfo_response
from ..provider.registry import Provider
from ..sessions.starting import start_session
from ..sessions.tasks import revoke_received
from ..subjects.models import PairwiseSubject
from .pending import Pending, issued_nonce

DEADLINE = 8.0
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
class Exchanged:
    """What the OP gave for a code, all checks passed."""

    id_claims: VerifiedClaims = field(repr=False)
    tokens: TokenResponse
    claims: Mapping[str, Any] = field(repr=False)
    dropped: tuple[str, ...]
    """Names of claims that came undeclared."""


@contextmanager
def nothing_left_alive(received: list[ReceivedToken], *, provider: str) -> Iterator[None]:
    """Whatever exception leaves the block, the tokens in received are queued for revocation, and tried, first."""
    try:
        yield
    except BaseException:
        if received:
            revoke_received(received, provider=provider)
        raise


def exchange(
    code: str,
    *,
    provider: Provider,
    pending: Pending,
    declared: Mapping[str, ClaimDeclaration],
    received: list[ReceivedToken],
    clock: Callable[[], datetime],
) -> Exchanged:
    """Return what the OP gives for the code, which is sent once.

    received: filled with every token as soon as it is here, whether or not the answer is accepted.
    Raises: SignInRefused. Spec: OIDC Core 3.1.3, 5.3.
    """
    declaration = provider.declaration
    metadata = provider.metadata(deadline=DEADLINE)
    request = build_code_request(
        metadata=metadata,
        declaration=declaration,
        code=code,
        redirect_uri=pending.redirect_uri,
        code_verifier=pending.code_verifier,
        freshness=Freshness(now=clock(), jti=entropy.token_b64url(32)),
    )
    response = provider.transport.send(request, deadline=DEADLINE)
    received.extend(received_tokens(response))
    for token in received:
        secrecy.learn(token.value, token.hint)
    tokens = judge_token_response(response, declaration=declaration)
    secrecy.learn(tokens.id_token, "id_token")
    keys = provider.keys(deadline=DEADLINE)
    id_claims = verify_id_token(
        tokens.id_token,
        keys=keys,
        declaration=declaration,
        nonce=pending.nonce,
        issued_nonce=issued_nonce,
        access_token=tokens.access_token,
        now=clock(),
    )
    arrived = dict(id_claims)
    if catalog.needs_userinfo(id_claims, declared) and metadata.userinfo_endpoint:
        userinfo_request = build_userinfo_request(
            metadata=metadata, declaration=declaration, access_token=tokens.access_token
        )
        userinfo = judge_userinfo_response(
            provider.transport.send(userinfo_request, deadline=DEADLINE),
            sub=id_claims["sub"],
            keys=keys,
            declaration=declaration,
            now=clock(),
        )
        arrived = {**userinfo, **{name: value for name, value in id_claims.items() if not catalog.is_empty(value)}}
        if declaration.subject_type == "pairwise":
            check_sub_not_pairwise(arrived)
    minimized = catalog.minimize(arrived, declared)
    # Not looked for in the response: a page for nurses may be where whoever claims to be one is led to.
    secrecy.learn([minimized.kept, id_claims["sub"], id_claims.get("sid")], "claim", place="anywhere")
    catalog.require_essential(minimized.kept, declared)
    return Exchanged(id_claims=id_claims, tokens=tokens, claims=minimized.kept, dropped=minimized.dropped)


def open_session(
    exchanged: Exchanged,
    *,
    session_id: uuid.UUID,
    subject: PairwiseSubject,
    provider: Provider,
    declared: Mapping[str, ClaimDeclaration],
    django_session_key: str,
    origin: Origin,
    now: datetime,
) -> tuple[str, ...]:
    """Write the session and its claims inside the caller's transaction; return the names of the claims kept."""
    declaration = provider.declaration
    id_claims = exchanged.id_claims
    start_session(
        id=session_id,
        user=subject.user,
        subject=subject,
        provider=declaration.name,
        issuer=declaration.issuer,
        sid=str(id_claims.get("sid", "")),
        tokens=exchanged.tokens,
        django_session_key=django_session_key,
        auth_time=auth_time_of(id_claims),
        acr=read_acr(id_claims),
        now=now,
        keeps_tokens=declaration.tokens == "keep",
    )
    return store(
        exchanged.claims,
        declared=declared,
        subject=subject,
        session_id=session_id,
        origin=origin,
        provider=declaration.name,
        now=now,
    )


def permit(
    exchanged: Exchanged,
    *,
    subject: PairwiseSubject,
    provider: Provider,
    stored: tuple[str, ...],
    changes: Sequence[Finished],
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
    detail = {"acr": read_acr(exchanged.id_claims), "claims": list(stored)}
    acts = [Act(action=Action.LOGIN_SUCCEEDED, detail=detail, **told)]
    if exchanged.dropped:
        acts.append(Act(action=Action.CLAIM_OVERFETCHED, detail={"claims": list(exchanged.dropped)}, **told))
    if exchanged.tokens.lifetime_alert:
        acts.append(Act(action=Action.ALERT_RAISED, detail={"rule": "access_token_lifetime"}, **told))
    record_with(changes, acts)


def read_acr(id_claims: VerifiedClaims) -> str:
    """Return the ID Token's acr; empty when it can't be kept, which R6 has refused where acr was asked for."""
    acr = id_claims.get("acr")
    return acr if isinstance(acr, str) and len(acr) <= 255 else ""


def new_session_id() -> uuid.UUID:
    """Return an unpredictable id for an OIDC session."""
    return uuid.UUID(bytes=entropy.token_bytes(16), version=4)
