"""The template tag of emergency access: `{% load phi_oidc_emergency %}{% phi_oidc_emergency %}` on
each page shows a banner while emergency access is open.
"""

from typing import Any

from django import template

from ...._internal import clock
from .. import conf
from ..queries import list_open_emergencies

register = template.Library()


@register.inclusion_tag("phi_oidc_emergency/banner.html", takes_context=True)
def phi_oidc_emergency(context: Any) -> dict[str, Any]:
    """Show the user's open emergencies and the link to close them; nothing if none is open."""
    user = getattr(context.get("request"), "user", None)
    if user is None or not user.is_authenticated or conf.emergency() is None:
        return {"emergencies": []}
    return {"emergencies": list_open_emergencies(user, now=clock.now())}
