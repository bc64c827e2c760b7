"""One translated sentence for an event, with the details that help. It names no person and no
purpose.
"""

from typing import Any, Protocol

from django.utils.translation import gettext, ngettext

from ...errors import Code
from ..actions import Action
from ..events import parse_detail
from . import get_action_label, get_alert_label, get_detail_value_label, get_reason_phrase

_CLAIM_ACTIONS = frozenset(
    {
        *(Action.LOGIN_SUCCEEDED, Action.CLAIM_STORED, Action.CLAIM_REVEALED),
        *(Action.CLAIM_OVERFETCHED, Action.CLAIM_SCRUBBED),
    }
)
_ALERT_ACTIONS = frozenset(
    {Action.ALERT_RAISED, Action.ALERT_ACKNOWLEDGED, Action.ALERT_MUTED, Action.ALERT_UNMUTED}
)
_PROVIDER_ANSWERS = frozenset({Code.PROVIDER_ERROR, Code.TOKEN_ERROR, Code.PAR_ERROR})
"""Reasons that say only that the provider sent an error: `provider_error` says which."""


class DescribedEvent(Protocol):
    """What a sentence is made of: an `AuditEvent` or an `Event`."""

    @property
    def action(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...


def describe_event(event: DescribedEvent) -> str:
    """Return what the event says, for example “Sign-in refused: this browser has no pending
    sign-in”.
    """
    detail = parse_detail(event.detail)
    action = get_action_label(event.action)
    subject_matter = _find_subject_matter(event.action, detail) or _find_reason_phrase(
        event.reason, detail
    )
    if not subject_matter:
        return action
    parts = {"action": action, "what": subject_matter}
    if event.action == Action.TOKEN_REVOCATION_FAILED and (
        attempts := _get_number(detail, "attempts")
    ):
        return gettext("%(action)s: %(what)s (attempt %(number)d)") % {**parts, "number": attempts}
    if (count := _get_number(detail, "count")) and event.reason:
        counted = ngettext(
            "%(action)s: %(what)s (%(count)d time)", "%(action)s: %(what)s (%(count)d times)", count
        )
        return counted % {**parts, "count": count}
    return gettext("%(action)s: %(what)s") % parts


def _find_subject_matter(action: str, detail: dict[str, Any]) -> str:
    """Return what the action was about, if that says more than its reason; otherwise empty."""
    if action in _ALERT_ACTIONS:
        return get_alert_label(str(detail.get("rule", "")))
    if action in _CLAIM_ACTIONS:
        names = detail.get("claims", detail.get("claim", ()))
        if isinstance(names, list):
            joined = ", ".join(map(str, names))
        else:
            joined = str(names or "")

        is_sign_in = action == Action.LOGIN_SUCCEEDED and joined
        if is_sign_in:
            return gettext("personal data stored (%(claims)s)") % {"claims": joined}
        return joined
    if action in (Action.AUDIT_VIEWED, Action.SIGNAL_RECEIVED):
        if action == Action.AUDIT_VIEWED:
            key = "page"
        else:
            key = "event"
        return get_detail_value_label(key, str(detail.get(key, "")))
    if action == Action.LOGOUT_RECEIVED:
        count = _get_number(detail, "sessions")
        return ngettext("%(count)d session ended", "%(count)d sessions ended", count) % {
            "count": count
        }
    if action == Action.AUDIT_VERIFIED:
        count = _get_number(detail, "findings")
        found = ngettext("%(count)d finding", "%(count)d findings", count) % {"count": count}

        if count:
            return found
        return gettext("no findings")
    return ""


def _find_reason_phrase(reason: str, detail: dict[str, Any]) -> str:
    error = str(detail.get("provider_error", ""))
    has_error = error not in ("", "other")
    if reason in _PROVIDER_ANSWERS and has_error:
        return get_reason_phrase(error)
    return get_reason_phrase(reason)


def _get_number(detail: dict[str, Any], key: str) -> int:
    """Return a number of the detail; 0 if it has none, or another value, which a writer to the
    table can insert.
    """
    value = detail.get(key)
    if isinstance(value, int):
        return value
    return 0
