"""Template tags: `{% load phi_oidc %}{% phi_oidc_session %}` belongs in the <head> of each page for
signed-in users.

`{% reveal claim purpose="TREAT" as born %}` reveals a `MaskedClaim`: `born.value`, or the reason
why there is none.
"""

import sys
from traceback import walk_stack
from typing import Any

from django import template
from django.forms.utils import flatatt
from django.middleware.csrf import get_token
from django.template.base import (
    FilterExpression,
    Parser,
    Token,
    render_value_in_context,
    token_kwargs,
)
from django.template.context import Context
from django.template.exceptions import TemplateSyntaxError
from django.templatetags.cache import CacheNode
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..claims.masking import MaskedClaim
from ..sessions.timeout_responses import get_expired_url, get_time_left, get_warning_seconds

register = template.Library()
_CACHE_BLOCK_ERROR = "reveal can't be used in a cache block, which would store the value."


@register.simple_tag(takes_context=True)
def phi_oidc_session(context: Any) -> SafeString | str:
    """Return the script that warns before the session ends and then blanks the page; "" for
    anonymous users.

    Without JavaScript, the page refreshes itself at the end, so RevocationMiddleware need not set a
    Refresh header.
    """
    request = context.get("request")
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or getattr(request, "phi_oidc_watched", False):
        return ""
    request.phi_oidc_watched = True
    time_left = get_time_left(request)
    nonce = flatatt(
        {"nonce": str(context.get("csp_nonce") or getattr(request, "csp_nonce", "")) or None}
    )
    data = {
        **{"session": time_left.session, "idle": time_left.idle, "absolute": time_left.absolute},
        "warning": get_warning_seconds(),
        **{
            "url": reverse("oidc_session"),
            "token": get_token(request),
            "expired": get_expired_url(request),
        },
        **_get_script_texts(),
    }
    return format_html(
        '<link rel="stylesheet" href="{}"{}>\n'
        '<script src="{}" defer{}{}></script>\n'
        '<noscript><meta http-equiv="refresh" content="{}; url={}"></noscript>',
        *(static("django_phi_oidc/session.css"), nonce),
        *(
            static("django_phi_oidc/session.js"),
            nonce,
            flatatt({f"data-{name}": str(data[name]) for name in data}),
        ),
        *(min(time_left.idle, time_left.absolute), get_expired_url(request)),
    )


@register.tag(name="reveal")
def compile_reveal(parser: Parser, token: Token) -> "RevealNode":
    """Compile `{% reveal claim purpose=code %}`, which renders the value, or `… as name %}`, which
    stores it.

    `consent=reference` is for a claim with a label.
    """
    name, *bits = token.split_contents()
    if any(command == "cache" for command, _token in parser.command_stack):
        raise TemplateSyntaxError(_CACHE_BLOCK_ERROR)

    if len(bits) in (4, 5) and bits[-2] == "as":
        target = bits.pop()
    else:
        target = ""

    if target:
        bits = bits[:-1]

    arguments = token_kwargs(bits[1:], parser)
    if (
        len(bits) != 1 + len(arguments)
        or "purpose" not in arguments
        or not arguments.keys() <= {"purpose", "consent"}
    ):
        text = (
            f"{name} takes a masked claim, purpose=…, and "
            "optionally consent=…, and `as` with a name."
        )
        raise TemplateSyntaxError(text)
    return RevealNode(
        parser.compile_filter(bits[0]), arguments["purpose"], arguments.get("consent"), target
    )


class RevealNode(template.Node):
    """Reveals a masked claim each time the template is rendered."""

    def __init__(
        self,
        claim: FilterExpression,
        purpose: FilterExpression,
        consent: FilterExpression | None,
        variable_name: str,
    ) -> None:
        self.claim = claim
        self.purpose = purpose
        self.consent = consent
        self.variable_name = variable_name

    def render(self, context: Context) -> str:
        """Return the value as text; the mask if it is refused or undecryptable; "" if there is no
        value.

        Raises: AuditUnavailable; TypeError if it is not a MaskedClaim; TemplateSyntaxError in a
        cache block.
        """
        # A cache block may also be around an include or a block of a child template.
        if any(
            frame.f_code is CacheNode.render.__code__
            for frame, _line in walk_stack(sys._getframe())
        ):
            raise TemplateSyntaxError(_CACHE_BLOCK_ERROR)
        claim = self.claim.resolve(context)
        if not isinstance(claim, MaskedClaim):
            raise TypeError("reveal takes a MaskedClaim.")

        if self.consent:
            consent = str(self.consent.resolve(context))
        else:
            consent = ""

        result = claim.get_result(purpose=str(self.purpose.resolve(context)), consent=consent)
        if self.variable_name:
            context[self.variable_name] = result
            return ""
        if result.error is not None:
            if result.is_scrubbed:
                return ""
            return str(claim)

        if result.value is None:
            return ""
        return render_value_in_context(result.value, context)


def _get_script_texts() -> dict[str, str]:
    return {
        "title": _("Are you still there?"),
        "idle-text": _(
            "You have been inactive for a while, so you will soon be "
            "signed out. Unsaved changes will be lost."
        ),
        "stay": _("Stay signed in"),
        "last-title": _("Your session is about to end"),
        "last-text": _(
            "Your session has reached its time limit. Save your changes now, then sign in again."
        ),
        "close": _("Close"),
        "left": _("Time left:"),
        "failed": _("That did not work. Check your connection and try again."),
        "over": _("Signed out"),
    }
