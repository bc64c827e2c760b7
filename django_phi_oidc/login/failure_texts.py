"""The texts of the pages for failed sign-ins, which `login_failed.html` displays."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.utils.translation import gettext_lazy as _


class FailureText(NamedTuple):
    """Translatable texts of one page."""

    title: Any
    explanation: Any
    advice: Any

    @property
    def paragraphs(self) -> tuple[Any, ...]:
        return self[1:]


FAILURE_TEXTS: Mapping[str, FailureText] = {
    "restart": FailureText(
        _("Please start signing in again"),
        _(
            "A sign-in works once, within ten minutes, and only "
            "in the browser where you started it."
        ),
        _(
            "You may have waited too long, used a link twice, or opened it in another browser. "
            "Nothing was changed. Please start again."
        ),
    ),
    "declined": FailureText(
        _("The sign-in was not finished"),
        _(
            "Your sign-in service sent you back without signing you in, because you cancelled or "
            "because it refused the sign-in."
        ),
        _(
            "Start again when you are ready. If the service "
            "itself refuses you, contact its support."
        ),
    ),
    "stronger": FailureText(
        _("We need more proof that it is you"),
        _(
            "This portal holds health information, so it requires a "
            "newer or stronger proof of your identity."
        ),
        _(
            "Sign in again and enter everything that your sign-in service asks for, such as a "
            "second factor. If it does not ask, sign out there first."
        ),
    ),
    "not_shared": FailureText(
        _("Required information was not shared"),
        _(
            "Your sign-in service did not send information about you "
            "that this portal needs to sign you in."
        ),
        _(
            "Sign in again, and agree to share the requested information. If you are not asked, "
            "contact our help desk with the reference below."
        ),
    ),
    "no_account": FailureText(
        _("You have no active account here"),
        _(
            "Your sign-in service knows you, but this portal has no "
            "active account for this way of signing in."
        ),
        _(
            "If you have another way to sign in, try it. If not, call our help desk with the "
            "reference below, and say how you signed in. The "
            "help desk never asks for your password."
        ),
    ),
    "other_person": FailureText(
        _("A different person has signed in"),
        _(
            "You were asked to confirm your identity, but your sign-in service returned another "
            "person, or you are no longer signed in here. Nothing was changed."
        ),
        _("Sign out at your sign-in service, then try again with your own account."),
    ),
    "failed": FailureText(
        _("We could not sign you in safely"),
        _(
            "Your sign-in did not pass a security check and was stopped. You did nothing wrong, "
            "and nothing was changed."
        ),
        _(
            "You may try once more. If it is stopped again, contact "
            "our help desk with the reference below."
        ),
    ),
}
"""By the kind of page, without `unavailable`, which has its own template."""
