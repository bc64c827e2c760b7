"""What recent logout tokens and deactivations named, so that a sign-in in progress starts no session afterwards.

The sign-in commits its session and then looks here; the logout commits its row here and then looks for sessions. So at
least one of them finds the other, without a lock.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.views.decorators.debug import sensitive_variables

from .._internal import clock
from ..crypto.keyring import SymmetricKey
from ..replay.cache import is_remembered, remember, remember_in_transaction
from ..subjects.identifiers import compute_subject_digest
from ..subjects.models import PairwiseSubject, SubjectDigest

MEMORY = timedelta(minutes=15)
"""Longer than a sign-in takes: ten minutes at the provider, and the requests of the callback."""
_KIND = "logout"


@sensitive_variables()
def remember_logout(*, issuer: str, sid: str, sub: str, keys: Sequence[SymmetricKey], now: datetime) -> None:
    """Commit what a verified logout token names: the session of its sid or else, with an empty sid, the person."""
    identifiers = [_format_sid(issuer, sid)] if sid else _list_sub_identifiers(issuer, sub, keys)
    remember(_KIND, identifiers, expires_at=now + MEMORY)


def remember_ended_access(subjects: Collection[PairwiseSubject]) -> None:
    """Remember in the caller's transaction that the access of these persons ends now.

    Requires: the subjects are locked. So a sign-in that found the account active has committed its session, which the
    caller ends, or it waits for the lock and then looks here.
    """
    digests = SubjectDigest.objects.filter(subject__in=subjects).values_list("digest", flat=True)
    # The time after the wait for the lock, and not that of the request: the sign-in may have begun since.
    remember_in_transaction(_KIND, list(digests), expires_at=clock.now() + MEMORY)


@sensitive_variables()
def was_logged_out(*, issuer: str, sid: str, sub: str, keys: Sequence[SymmetricKey], since: datetime) -> bool:
    """Say whether the session (sid may be empty) or the person was named since that time."""
    identifiers = _list_sub_identifiers(issuer, sub, keys)
    if sid:
        identifiers.append(_format_sid(issuer, sid))
    return is_remembered(_KIND, identifiers, until=since + MEMORY)


def _format_sid(issuer: str, sid: str) -> str:
    # An issuer contains no NUL, so two pairs never give the same text, nor that of a digest.
    return f"{issuer}\0{sid}"


def _list_sub_identifiers(issuer: str, sub: str, keys: Sequence[SymmetricKey]) -> list[str]:
    return [compute_subject_digest(key.material, issuer=issuer, sub=sub) for key in keys]
