"""System check of the names of the claims."""

from difflib import get_close_matches
from typing import Any

from django.core.checks import Tags

from .. import conf
from .._internal.check_messages import Messages, in_settings, register_check, warning
from ..claims.minimization import PROTOCOL_CLAIMS, SCOPE_CLAIMS

STANDARD_CLAIMS = PROTOCOL_CLAIMS.union(*SCOPE_CLAIMS.values())
MIN_SIMILARITY = 0.92
"""Finds a missing letter, or another separator. `emails` and `mail`, which some providers send, are
no mistakes.
"""


@register_check(Tags.security)
def check_claim_names(**kwargs: Any) -> Messages:
    """W095: the name of a claim is nearly that of a standard claim, so that the provider may never
    send it.
    """
    for name in conf.claims():
        base, separator, language = name.partition("#")
        if base not in STANDARD_CLAIMS and (
            near := get_close_matches(base, STANDARD_CLAIMS, 1, MIN_SIMILARITY)
        ):
            right = f"{near[0]}{separator}{language}"
            line = in_settings(f'PHI_OIDC["CLAIMS"]["{right}"] = PHI_OIDC["CLAIMS"].pop("{name}")')
            text = f"CLAIMS: {name!r} is not a claim of OpenID Connect; did you mean {right}?"
            yield warning(95, text, f"If the provider does not use that name. {line}")
