"""System check of the option `signals` of a provider."""

from typing import Any

from django.core.checks import Tags

from ..._internal.check_messages import Messages, in_settings, register_check, warning
from . import conf


@register_check(Tags.security)
def check_signals(**kwargs: Any) -> Messages:
    """W140: events in the form of drafts are accepted."""
    for name, signals in conf.signals().items():
        if signals.allow_draft_events:
            text = "allow_draft_events accepts security events in the form of drafts."
            line = f'del PHI_OIDC["PROVIDERS"]["{name}"]["signals"]["allow_draft_events"]'
            yield warning(140, f"Provider {name!r}: {text}", in_settings(line))
