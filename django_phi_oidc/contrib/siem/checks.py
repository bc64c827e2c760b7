"""System check of the option `SIEM`."""

from typing import Any

from django.conf import settings
from django.core.checks import Tags

from ..._internal.check_messages import Messages, in_settings, register_check, warning
from . import conf


@register_check(Tags.security)
def check_sinks(**kwargs: Any) -> Messages:
    """W016: a sink without TLS, on a loopback address."""
    text = "has no TLS: the receiver on this machine must not forward events in clear."
    for sink in conf.sinks().values():
        if sink.is_plaintext and not settings.DEBUG:
            if sink.type == "syslog":
                line = '["tls"] = True'
            else:
                line = '["url"] = "https://…"'

            hint = in_settings(f'PHI_OIDC["SIEM"]["{sink.name}"]{line}')
            yield warning(16, f"Sink {sink.name!r} {text}", hint)
