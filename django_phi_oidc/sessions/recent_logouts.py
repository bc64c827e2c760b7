"""What recent logout tokens named, so that a sign-in that was in progress does not start a session afterwards.

The sign-in commits its session and then looks here; the logout commits its row here and then looks for sessions. So at
least one of them finds the other, without a lock.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.views.decorators.debug import sensitive_variables

from ..crypto.keyring import SymmetricKey
from ..replay.cache import is_remembered, remember
from ..subjects.identifiers import compute_subject_digest

MEMORY = timedelta(minutes=15)
"""Longer than a sign-in takes: ten minutes at the provider, and the requests of the callback."""
_KIND = "logout"


@sensitive_variables()
def remember_logout(*, issuer: str, sid: str, sub: str, keys: Sequence[SymmetricKey], now: datetime) -> None:
    """Commit what a verified logout token names: the session of its sid or else, with an empty sid, the person."""
    identifiers = [_format_sid(issuer, sid)] if sid else _list_sub_identifiers(issuer, sub, keys)
    remember(_KIND, identifiers, expires_at=now + MEMORY)


@sensitive_variables()
def was_logged_out(*, issuer: str, sid: str, sub: str, keys: Sequence[SymmetricKey], since: datetime) -> bool:
    """Say whether a logout token has named the session (sid may be empty) or the person since that time."""
    identifiers = _list_sub_identifiers(issuer, sub, keys)
    if sid:
        identifiers.append(_format_sid(issuer, sid))
    return is_remembered(_KIND, identifiers, until=since + MEMORY)


def _format_sid(issuer: str, sid: str) -> str:
    # An issuer contains no NUL, so two pairs never give the same text, nor that of a digest.
    return f"{issuer}\0{sid}"


def _list_sub_identifiers(issuer: str, sub: str, keys: Sequence[SymmetricKey]) -> list[str]:
    return [compute_subject_digest(key.material, issuer=issuer, sub=sub) for key in keys]
