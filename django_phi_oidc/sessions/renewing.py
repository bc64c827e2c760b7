"""A session goes on with what a newer sign-in of the same person brought: tokens, and how surely they are known.

What it held until then is revoked when it ends, and not at once: an OP may know one grant of a person for a client, and
with the old refresh token it revokes all of that (RFC 7009 2.1), the new tokens too.
"""

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, cast

from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from .. import conf, secrecy
from ..errors import KeyRingError
from ..fields import SealedTextField
from ..oidc.token import ReceivedToken, TokenHint, TokenResponse
from .models import Doomed, OIDCSession, PendingRevocation, digest

TOKENS: tuple[TokenHint, TokenHint] = ("refresh_token", "access_token")


def find_live(session_id: uuid.UUID) -> OIDCSession | None:
    """Return the row of a session that lives, with its person and account; None when it has ended."""
    return OIDCSession.objects.filter(pk=session_id, ended_at=None).select_related("subject", "user").first()


@sensitive_variables()
def renew_session(
    session_id: uuid.UUID,
    *,
    subject: int,
    tokens: TokenResponse,
    sid: str,
    acr: str,
    auth_time: datetime | None,
    keeps_tokens: bool,
    now: datetime,
) -> tuple[uuid.UUID, ...] | None:
    """Give the session what the OP issued, and queue what it held; return the revocations that are to be tried now.

    One transaction. None when the session has ended meanwhile, or is another person's: nothing is written then. What
    it started with, its claims and its limits stay. A refresh that is under way loses its lease, and what it brings.
    keeps_tokens: False where access and refresh token are not stored, but revoked now.
    Raises: KeyMissing. Spec: R9.
    """
    with transaction.atomic():
        live = OIDCSession.objects.filter(pk=session_id, ended_at=None, subject_id=subject)
        # A write first: on SQLite a look alone would hold nobody off.
        if not live.update(refresh_lease_until=None):
            return None
        row = OIDCSession.objects.get(pk=session_id)
        new = {"refresh_token": tokens.refresh_token, "access_token": tokens.access_token}
        doomed = [
            Doomed(token=token, provider=row.provider, session=row.pk, expires_at=row.access_token_expires_at)
            for token in _held(row)
            if token.value not in new.values()
        ]
        PendingRevocation.objects.queue(doomed, now=now, due_at=row.started_at + conf.absolute_timeout())
        dying = [] if keeps_tokens else [ReceivedToken(hint=hint, value=new[hint]) for hint in TOKENS if new[hint]]
        queued = PendingRevocation.objects.queue(
            [Doomed(token=token, provider=row.provider, session=row.pk) for token in dying], now=now
        )
        values: dict[str, Any] = {
            **({hint: new[hint] or None for hint in TOKENS} if keeps_tokens else dict.fromkeys(TOKENS)),
            "access_token_expires_at": now + tokens.expires_in if keeps_tokens and tokens.expires_in else None,
            "id_token": tokens.id_token,
            "sid_digest": digest(sid) if sid else "",
            "acr": acr,
            "auth_time": auth_time,
        }
        OIDCSession(pk=row.pk, **values).save(update_fields=list(values))
        return queued


def _held(row: OIDCSession) -> Iterator[ReceivedToken]:
    """Yield the tokens that the session holds; what no key opens can't be revoked, and keeps nobody from renewing."""
    for hint in TOKENS:
        try:
            value = _open(row, hint)
        except KeyRingError:
            continue
        if value:
            yield ReceivedToken(hint=hint, value=value)


def _open(row: OIDCSession, column: Literal["refresh_token", "access_token"]) -> str:
    opened = cast(SealedTextField, OIDCSession._meta.get_field(column)).open(row) or ""
    secrecy.learn(opened, column)
    return opened
