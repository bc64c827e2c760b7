"""The state of a revocation in one translated sentence."""

from datetime import UTC, datetime

from django.utils.translation import gettext, ngettext

from ..._internal import clock
from ...audit.descriptions import get_reason_phrase
from ...sessions.models import PendingRevocation, RevocationStatus


def describe_revocation(row: PendingRevocation) -> str:
    """Return the state, for example “Revocation failed: the server answered 503; next attempt at
    14:02 UTC”.
    """
    if row.status == RevocationStatus.PENDING:
        return _describe_waiting(row)
    return _describe_result(row)


def _describe_waiting(row: PendingRevocation) -> str:
    if row.created_at > clock.now():
        # A token that a session had before it was renewed or refreshed.
        return gettext("Waits for the end of the session")
    time = _format_time(row.blocked_until or row.due_at)
    if not row.last_fault:
        return gettext("Waits for the first attempt at %(time)s") % {"time": time}
    text = gettext("Revocation failed: %(reason)s; next attempt at %(time)s")
    return text % {"reason": _get_fault_phrase(row.last_fault), "time": time}


def _describe_result(row: PendingRevocation) -> str:
    if row.status == RevocationStatus.DONE:
        return gettext("Revoked by the provider")
    if row.status == RevocationStatus.UNSUPPORTED:
        return gettext("Not revoked: the provider does not revoke such tokens")
    reason = _get_fault_phrase(row.last_fault)
    if row.status == RevocationStatus.REFUSED:
        return gettext("Refused for good: %(reason)s") % {"reason": reason}
    count = row.attempts
    text = ngettext(
        "Abandoned after %(count)d attempt: %(reason)s",
        "Abandoned after %(count)d attempts: %(reason)s",
        count,
    )
    return text % {"count": count, "reason": reason}


def _get_fault_phrase(fault: str) -> str:
    """Return a stored fault in words. fault: a code, and after a space the provider's own code, if
    it sent one.
    """
    code, _, provider_error = fault.partition(" ")
    if provider_error in ("", "other"):
        return get_reason_phrase(code)
    texts = {
        "reason": get_reason_phrase(code),
        "provider_reason": get_reason_phrase(provider_error),
    }
    return gettext("%(reason)s (%(provider_reason)s)") % texts


def _format_time(at: datetime) -> str:
    """Return the time in UTC, as in the lists, with the date unless it is today."""
    at = at.astimezone(UTC)
    if at.date() == clock.now().astimezone(UTC).date():
        return f"{at:%H:%M} UTC"
    return f"{at:%Y-%m-%d %H:%M} UTC"
