"""What recent logout tokens and deactivations named, so that a sign-in in progress starts no
session afterwards.

The sign-in commits its session and then looks here; the logout commits its row here and then looks
for sessions. So at least one of them finds the other, without a lock.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.views.decorators.debug import sensitive_variables

from .._internal import clock
from ..crypto.keyring import SymmetricKey
from ..replay.cache import find_remembered_kind, remember, remember_in_transaction
from ..subjects.linking import list_subject_digests
from ..subjects.models import PairwiseSubject, SubjectDigest
from .models import EndReason

MEMORY = timedelta(minutes=15)
"""Longer than a sign-in takes: ten minutes at the provider, and the requests of the callback."""
_KINDS = {
    EndReason.USER_INACTIVE: "ended_access",
    EndReason.SECURITY_EVENT: "security_event_end",
    EndReason.BACKCHANNEL_LOGOUT: "logout",
}
"""Why a sign-in that is in progress ends, and the kind of the identifiers; the first one that is
found counts.
"""
SIGN_IN_REFUSAL_REASONS = (EndReason.AUDIT_UNAVAILABLE, *_KINDS)
"""Of a session whose sign-in was refused after `login.succeeded` was committed."""


@sensitive_variables()
def remember_logout(
    *,
    issuer: str,
    sid: str,
    sub: str,
    keys: Sequence[SymmetricKey],
    reason: EndReason,
    now: datetime,
) -> None:
    """Commit what a verified token names: the session of its sid or else, with an empty sid, the
    person.

    reason: BACKCHANNEL_LOGOUT or SECURITY_EVENT.
    """
    if sid:
        identifiers = [_format_sid(issuer, sid)]
    else:
        identifiers = list_subject_digests(issuer, sub, keys)
    remember(_KINDS[reason], identifiers, expires_at=now + MEMORY)


def remember_ended_access(subjects: Collection[PairwiseSubject]) -> None:
    """Remember in the caller's transaction that the access of these persons ends now, as their
    account is deactivated.

    Requires: the subjects are locked. So a sign-in that found the account active has committed its
    session, which the caller ends, or it waits for the lock and then looks here.
    """
    digests = SubjectDigest.objects.filter(subject__in=subjects).values_list("digest", flat=True)
    # The time after the wait for the lock, and not that of the request: the sign-in may have begun
    # since.
    remember_in_transaction(
        _KINDS[EndReason.USER_INACTIVE], list(digests), expires_at=clock.now() + MEMORY
    )


@sensitive_variables()
def find_end_reason(
    *, issuer: str, sid: str, sub: str, keys: Sequence[SymmetricKey], since: datetime
) -> EndReason | None:
    """Return why the session (sid may be empty) or the person was named since that time; None if it
    was not.
    """
    identifiers = list_subject_digests(issuer, sub, keys)
    if sid:
        identifiers.append(_format_sid(issuer, sid))
    kind = find_remembered_kind(list(_KINDS.values()), identifiers, until=since + MEMORY)
    for reason, name in _KINDS.items():
        if name == kind:
            return reason
    return None


def _format_sid(issuer: str, sid: str) -> str:
    # An issuer contains no NUL, so two pairs never give the same text, nor that of a digest.
    return f"{issuer}\0{sid}"
