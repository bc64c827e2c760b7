"""System checks of options that several apps have."""

from collections.abc import Callable

from django.core.exceptions import ImproperlyConfigured

from ..._internal.check_messages import Messages, error, in_settings, warning
from ...audit import conf as audit_conf
from ...options import list_mistakes, list_unknown_options


def check_option(read: Callable[[], object]) -> Messages:
    """Yield E002 for each fault of a value that read derives from options.

    Mistakes in the options themselves are left out: `check_declarations` reports them.
    """
    try:
        read()
    except ImproperlyConfigured as fault:
        reported = {*list_unknown_options(), *list_mistakes()}
        for text in str(fault).split("\n"):
            if text not in reported:
                yield error(2, text)


def check_client_cert_header(path: str) -> Messages:
    """E107: `allow_client_cert_header` is set, and no proxy is trusted; W107: the proxy must remove
    the header of clients. path: of the declaration that has the option, in PHI_OIDC.
    """
    option, rest = path.split("[", 1)
    line = in_settings(f'del PHI_OIDC["{option}"][{rest}["allow_client_cert_header"]')
    if not audit_conf.trusted_proxies():
        text = (
            f"{path}['allow_client_cert_header']: TRUSTED_PROXIES "
            "is empty, so the header is never read."
        )
        yield error(107, f"PHI_OIDC: {text}", line)
    else:
        text = (
            f"{path}: the proxy must remove Client-Cert from "
            "requests, or clients can forge certificates."
        )
        yield warning(107, f"PHI_OIDC: {text}", line)
