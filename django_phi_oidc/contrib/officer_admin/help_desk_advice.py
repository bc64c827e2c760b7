"""What the help desk can do about a refusal that a user reports.

docs/how-to/help-desk.md has the same sentences for the pages, and activation-codes.md explains the
codes.
"""

from collections.abc import Mapping

from django.utils.translation import gettext

from ...audit.events import Action, parse_detail
from ...audit.models import AuditEvent
from ...errors import Code, list_codes
from ...http.transport import is_outage_status
from ...login.failures import PAGES_BY_CODE, PAGES_BY_PROVIDER_ERROR, FailurePage

_ = str  # Marks a text for makemessages; `get_advice` translates it.
_OPERATORS = _(
    "The caller cannot correct this. Pass the reference on to the operators of the portal."
)
_SECURITY = _(
    "Inform the security officer at once, and pass the reference on. Do not change the account."
)
_NEW_CODE = _("Verify the identity of the caller. Then create a new activation code.")
_INACTIVE = _(
    "Verify the identity of the caller. Then ask an "
    "administrator whether the account may be activated."
)

ADVICE_BY_PAGE: Mapping[FailurePage, str] = {
    "restart": _(
        "Ask the caller to start again from the home page of the portal, in one browser window, "
        "with cookies allowed, and not from a bookmark."
    ),
    "declined": _(
        "Ask the caller to sign in again and not to cancel. If the sign-in service refuses the "
        "caller, only its support can help."
    ),
    "stronger": _(
        "Ask the caller to sign in again and to enter the second factor. If the service does not "
        "ask for one, the caller has to sign out there first."
    ),
    "not_shared": _(
        "Ask the caller to sign in again and to agree to share the information. If the service "
        "does not ask, pass the reference on to the operators of the portal."
    ),
    "other_person": _(
        "Another person is signed in at the sign-in service in this browser. Ask the caller to "
        "sign out there and to try again."
    ),
    "no_account": _(
        "Verify the identity of the caller. Ask whether the caller used another way to sign in "
        "than usual, and let them try that one first. Otherwise create an activation code, or pass "
        "the reference on to an administrator."
    ),
    "failed": _(
        "Ask the caller to try once more. If the page appears again, or for a second caller, pass "
        "the references on to the security officer at once."
    ),
    "unavailable": _(
        "A service is down. Inform the operators of the portal, "
        "and ask the caller to try again later."
    ),
}
"""By the page that the caller sees."""
ADVICE_BY_CODE: Mapping[str, str] = {
    "user_inactive": _INACTIVE,
    "account_not_saved": _OPERATORS,
    "subject_altered": _SECURITY,
    "break_glass_refused": _(
        "This is the sign-in page of local accounts. Unless the caller is an administrator, inform "
        "the security officer."
    ),
}
"""By rule code, before the page."""
ACTIVATION_ADVICE: Mapping[str, str] = {
    "unknown": _(
        "Ask the caller to compare each character with the letter. If the code is correct, verify "
        "the identity of the caller and create a new activation code."
    ),
    **dict.fromkeys(("expired", "revoked"), _NEW_CODE),
    "redeemed": _(
        "Ask the caller whether the code was used before. If not, another person used it: inform "
        "the security officer at once, and pass the reference on."
    ),
    "user_inactive": _INACTIVE,
    "altered": _SECURITY,
    "privileges_grown": _(
        "The account has got more privileges since the code was "
        "created. Ask an administrator for a new code."
    ),
    "subject_taken": _(
        "The caller already has an account. Ask the caller to sign in without a code."
    ),
    "subject_key_missing": _OPERATORS,
    "guessing": _("Ask the caller to wait for a minute, and then to enter the code again."),
}
"""By the reason of `activation.refused`."""
_NOT_PERMITTED = _(
    "If the caller should be permitted to do this, ask an "
    "administrator of the portal for the permission."
)


def get_advice(event: AuditEvent) -> str:
    """Return what the help desk can do about this refusal, translated."""
    return gettext(_find_advice(event))


def _find_advice(event: AuditEvent) -> str:
    if event.action == Action.ACTIVATION_REFUSED:
        return ACTIVATION_ADVICE.get(event.reason, _OPERATORS)
    if event.action != Action.LOGIN_REFUSED:
        return _NOT_PERMITTED
    return ADVICE_BY_CODE.get(event.reason) or ADVICE_BY_PAGE[_get_failure_page(event)]


def _is_provider_fault(reason: str) -> bool:
    """Return whether the reason is a rule code of a fault that only the provider can correct."""
    return any(code == reason and code.is_provider_fault for code in list_codes())


def _get_failure_page(event: AuditEvent) -> FailurePage:
    """Return the page that the user saw, judging by the event."""
    detail = parse_detail(event.detail)
    if event.reason == Code.PROVIDER_ERROR:
        return PAGES_BY_PROVIDER_ERROR.get(str(detail.get("provider_error")), "failed")
    status = detail.get("provider_status")
    is_outage = isinstance(status, int) and is_outage_status(status)
    is_unavailable = is_outage or _is_provider_fault(event.reason)
    return PAGES_BY_CODE.get(event.reason, "unavailable" if is_unavailable else "failed")
