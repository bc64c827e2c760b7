"""The only way out of a session. It waits for no audit database, no OP and no broker."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from typing import Any, Literal, cast

from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..claims.scrubbing import scrub_session
from ..errors import KeyRingError, Undecryptable
from ..fields import SealedTextField
from ..oidc.token import ReceivedToken, TokenHint
from .models import EndReason, OIDCSession, PendingRevocation, RevocationStatus

SealedColumn = Literal["refresh_token", "access_token", "id_token", "session_key"]
TOKENS: tuple[TokenHint, ...] = ("refresh_token", "access_token")
"""In the order in which they are revoked: a refresh token could make new access tokens."""
SEALED: tuple[SealedColumn, ...] = (*TOKENS, "id_token", "session_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is left of a session that has just ended."""

    provider: str
    id_token: str = field(repr=False)
    """For the logout hint alone; empty when there was none."""
    revocations: tuple[uuid.UUID, ...]
    """Tokens to be revoked at the OP once this is committed, the most dangerous first."""


@sensitive_variables()
def end_session(session_id: uuid.UUID, reason: EndReason, *, origin: Origin, now: datetime) -> Ended | None:
    """End the session, exactly once, or return None when it has ended before or was never there.

    One transaction: the row is ended, its claims are scrubbed, each token is queued for revocation, all tokens are
    dropped, the events lie in the outbox, the Django session is gone (after the commit, where the session engine knows
    no transactions). A token that can't be opened any more does not keep the session alive; an alert tells of it.
    """
    with transaction.atomic():
        live = OIDCSession.objects.filter(pk=session_id, ended_at__isnull=True)
        if not live.update(ended_at=now, end_reason=reason):
            return None
        session = OIDCSession.objects.select_related("subject").get(pk=session_id)
        origin = origin._replace(session=str(session_id))
        opened = {column: value for column in SEALED if (value := _open(session, column))}
        lost = [column for column in SEALED if column not in opened and getattr(session, column) is not None]
        scrub_session(session_id, origin=origin, now=now)
        revocations = PendingRevocation.objects.queue(
            [ReceivedToken(hint=hint, value=opened[hint]) for hint in TOKENS if hint in opened],
            provider=session.provider,
            session=session_id,
            access_token_expires_at=session.access_token_expires_at,
            now=now,
        )
        _tell(session, reason, queued=len(revocations), lost=lost, origin=origin, now=now)
        OIDCSession.objects.filter(pk=session_id).update(**dict.fromkeys(SEALED))
        if "session_key" in opened:
            _delete_django_session(opened["session_key"])
    return Ended(provider=session.provider, id_token=opened.get("id_token", ""), revocations=revocations)


def _open(session: OIDCSession, column: SealedColumn) -> str:
    """Return the plain text of that column; empty when there is none or when no key opens it."""
    field_of_column = cast(SealedTextField, OIDCSession._meta.get_field(column))
    try:
        return field_of_column.open(session) or ""
    except KeyRingError:
        return ""


def _tell(
    session: OIDCSession, reason: EndReason, *, queued: int, lost: Sequence[SealedColumn], origin: Origin, now: datetime
) -> None:
    """Put the events of this end into the outbox. lost: columns that hold something which no key opens."""
    told: dict[str, Any] = {
        "origin": origin,
        "now": now,
        "provider": session.provider,
        "subject": str(session.subject.uuid) if session.subject else "",
    }
    enqueue(Action.SESSION_ENDED, reason=reason, detail={"tokens": queued}, **told)
    if reason is EndReason.LOGOUT:
        enqueue(Action.LOGOUT_COMPLETED, **told)
    for hint in TOKENS:
        if hint in lost:
            detail = {"hint": hint, "attempts": 0, "status": RevocationStatus.ABANDONED}
            enqueue(Action.TOKEN_REVOCATION_FAILED, outcome="failure", reason=Undecryptable.code, detail=detail, **told)
    if lost:
        enqueue(Action.ALERT_RAISED, reason=Undecryptable.code, detail={"rule": "session_undecryptable"}, **told)


def _delete_django_session(key: str) -> None:
    """Delete the Django session with the open transaction, or, by an engine that knows none, after it.

    cached_db gets both: until the commit another request may put the row into the cache again.
    """
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore):
        store().delete(key)
    if store is not DatabaseStore:

        def delete_django_session() -> None:
            store().delete(key)

        # A name of its own and no partial: what fails is logged by name, and a partial's would show the key.
        transaction.on_commit(delete_django_session, robust=True)
