"""Somebody signed out at the OP: their sessions end here. Spec: OIDC Back-Channel and Front-Channel Logout 1.0."""

from collections.abc import Collection, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from ..audit.events import Origin
from ..errors import LogoutTokenReplayed
from ..keyring import Key
from ..oidc.logout_token import LogoutToken
from ..replay.spending import spend_with_transaction
from ..subjects.linking import find_subjects
from .ending import Ended, end_sessions
from .models import EndReason, OIDCSession, digest

BATCH = 1000
"""Sessions ended by the same statements."""


@sensitive_variables()
def hear_logout_token(
    token: LogoutToken,
    *,
    keys: Sequence[Key],
    origin: Origin,
    now: datetime,
    keep_offline_of: Collection[str] = (),
) -> list[Ended]:
    """End the sessions that a verified logout token is about, all of them or none; return what is left of them.

    Its jti is spent in the same transaction: a delivery that failed can be repeated, one that did not can't. Of two at
    once, the second waits for the first. keys: all subject keys, by one of which a `sub` is known. keep_offline_of: as
    end_sessions takes it.

    Requires: no open transaction (RuntimeError): what is answered to the OP is committed.
    Raises: LogoutTokenReplayed, SubjectKeyMissing. Spec: Back-Channel Logout 2.6, 2.7.
    """
    with transaction.atomic(durable=True):
        # An issuer holds no NUL, so no two pairs run together.
        if not spend_with_transaction("logout_token", f"{token.iss}\0{token.jti}", until=token.until):
            raise LogoutTokenReplayed
        about = Q(issuer=token.iss)
        if token.sid:
            about &= Q(sid_digest=digest(token.sid))
        if token.sub:
            about &= Q(subject__in=find_subjects(issuer=token.iss, sub=token.sub, keys=keys))
        return _end(about, EndReason.BACKCHANNEL_LOGOUT, origin=origin, now=now, keep_offline_of=keep_offline_of)


@sensitive_variables()
def hear_sid(sid: str, *, issuer: str, origin: Origin, now: datetime) -> list[Ended]:
    """End the sessions of that `sid` of that issuer; return what is left of them.

    Where there are none, nothing is written: anybody can ask. Spec: Front-Channel Logout 2.
    """
    about = Q(issuer=issuer, sid_digest=digest(sid))
    return _end(about, EndReason.FRONTCHANNEL_LOGOUT, origin=origin, now=now, keep_offline_of=())


def _end(
    about: Q, reason: EndReason, *, origin: Origin, now: datetime, keep_offline_of: Collection[str]
) -> list[Ended]:
    live = OIDCSession.objects.filter(about, ended_at=None).order_by("pk")
    ids = list(live.values_list("pk", flat=True))
    return [
        ended
        for start in range(0, len(ids), BATCH)
        for ended in end_sessions(
            ids[start : start + BATCH], reason, origin=origin, now=now, keep_offline_of=keep_offline_of
        )
    ]
