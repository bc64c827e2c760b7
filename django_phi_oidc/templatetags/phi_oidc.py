"""`{% load phi_oidc %}{% phi_oidc_session %}` in the <head> of every page of people who are signed in."""

from typing import Any

from django import template
from django.forms.utils import flatatt
from django.middleware.csrf import get_token
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..sessions.refusing import expired_url, time_left, warning_seconds

register = template.Library()


@register.simple_tag(takes_context=True)
def phi_oidc_session(context: Any) -> SafeString | str:
    """Return the script that warns before the session is over and blanks the page when it is; nothing for others.

    Without script, the page leaves by a refresh; it is then not to do so by a header of RevocationMiddleware's.
    """
    request = context.get("request")
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or getattr(request, "phi_oidc_watched", False):
        return ""
    request.phi_oidc_watched = True
    left = time_left(request)
    nonce = flatatt({"nonce": str(context.get("csp_nonce") or getattr(request, "csp_nonce", "")) or None})
    data = {
        **{"session": left.session, "idle": left.idle, "absolute": left.absolute, "warning": warning_seconds()},
        **{"url": reverse("oidc_session"), "token": get_token(request), "expired": expired_url()},
        **_texts(),
    }
    return format_html(
        '<link rel="stylesheet" href="{}"{}>\n'
        '<script src="{}" defer{}{}></script>\n'
        '<noscript><meta http-equiv="refresh" content="{}; url={}"></noscript>',
        *(static("django_phi_oidc/session.css"), nonce),
        *(static("django_phi_oidc/session.js"), nonce, flatatt({f"data-{name}": str(data[name]) for name in data})),
        *(min(left.idle, left.absolute), expired_url()),
    )


def _texts() -> dict[str, str]:
    return {
        "title": _("Are you still there?"),
        "idle-text": _(
            "Nothing has happened for a while, so you will soon be signed out. Unsaved changes will be lost."
        ),
        "stay": _("Stay signed in"),
        "last-title": _("Your session is about to end"),
        "last-text": _("It has lasted as long as it may. Save your changes now, then sign in again."),
        "close": _("Close"),
        "left": _("Time left:"),
        "failed": _("That did not work. Check your connection and try again."),
        "over": _("Signed out"),
    }
