"""System checks of the pages to which a sign-in and a sign-out lead."""

from typing import Any

from django.conf import settings
from django.core.checks import Tags

from .._internal.check_messages import Messages, error, in_settings, register_check, warning
from ..access.responses import find_url, has_page
from ..login.redirect_url import is_landing_unset
from ..sessions.user_logout import is_logout_routed


@register_check(Tags.security)
def check_redirect_urls(**kwargs: Any) -> Messages:
    """E037: no URL has the name in LOGIN_REDIRECT_URL or LOGOUT_REDIRECT_URL; W037: a sign-in leads
    to no page.
    """
    if not is_logout_routed():
        return
    for name in ("LOGIN_REDIRECT_URL", "LOGOUT_REDIRECT_URL"):
        if (value := getattr(settings, name)) and not find_url(value):
            yield error(
                37,
                f"{name} is {value!r}, and no URL of the project has this name.",
                _build_hint(name),
            )
    if is_landing_unset():
        text = (
            "LOGIN_REDIRECT_URL is Django's default, and the project has no page at "
            f"{settings.LOGIN_REDIRECT_URL}"
        )
        consequence = "a sign-in without `next` leads to a page that only confirms it."
        yield warning(37, f"{text}: {consequence}", _build_hint("LOGIN_REDIRECT_URL"))


def _build_hint(name: str) -> str:
    if has_page("/"):
        value = "/"
    else:
        value = "name-of-your-start-page"
    return in_settings(f'{name} = "{value}"')
