"""What a fault of a delivery means and what to do about it, in words, for the admin and the
command. Translatable.
"""

import re
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

_NETWORK = _("Check that the collector runs, its address in the declaration, DNS and the firewall.")


@dataclass(frozen=True, slots=True)
class FaultText:
    """Both translatable."""

    meaning: Any
    remedy: Any


FAULT_TEXTS: dict[str, FaultText] = {
    "log_behind_sink": FaultText(
        _("The sink has more events than the database: the database is an older copy."),
        _("Run “phi_oidc audit resume”. Delivery continues where the new epoch begins."),
    ),
    "log_forked": FaultText(
        _("The last delivered checkpoint is not in this log: the log was replaced."),
        _("Find out who changed the log before anything else: this is what checkpoints are for."),
    ),
    "event_missing": FaultText(
        _("A sealed event is missing from the database."),
        _(
            "Run “phi_oidc audit verify”, which names the event, and "
            "restore its row from a backup or another sink."
        ),
    ),
    "event_unreadable": FaultText(
        _("A sealed event was altered and is no valid event any more."),
        _(
            "Run “phi_oidc audit verify”, which names the event, and "
            "restore its row from a backup or another sink."
        ),
    ),
    "item_unformattable": FaultText(
        _("An event has no form in the format of the sink."),
        _("Report it to the developers of the package, with the line of the worker’s log."),
    ),
    "file_unwritable": FaultText(
        _("The file cannot be written."),
        _(
            "Check that the folder of the declared path exists on the "
            "worker, its permissions, and the free space."
        ),
    ),
    "header_unreadable": FaultText(
        _("The file with the value of a header cannot be read."),
        _(
            "Check that the file exists on the worker, that the worker may read it, and that it "
            "has one line of ASCII."
        ),
    ),
    "response_invalid": FaultText(
        _("The response of the server does not name a result for each event."),
        _("Check that the declared URL is the base of a FHIR R4 server that accepts batches."),
    ),
    "transport_unreachable": FaultText(_("The collector cannot be reached."), _NETWORK),
    "transport_timeout": FaultText(
        _("The collector did not answer in time."),
        _("Check the load of the collector and the network."),
    ),
    "transport_tls": FaultText(
        _("The certificate of the collector, or the client certificate, cannot be used."),
        _(
            "Check the certificate of the collector and its host "
            "name, ca_bundle and client_certificate."
        ),
    ),
    "transport_redirect": FaultText(
        _("The collector answered with a redirect, which is not followed."),
        _("Declare the URL that the collector redirects to."),
    ),
    "transport_too_large": FaultText(
        _("The response of the collector is too large."),
        _("Check that the declared URL is that of the collector."),
    ),
    "audit_unavailable": FaultText(
        _("The audit database could not be read."),
        _("Check the database of the audit log. The collector is not the cause."),
    ),
}
_HTTP_TEXTS: dict[int, Any] = {
    400: _("Check the format of the declaration and the log of the collector."),
    401: _("Check the header with the token, and whether the token has expired."),
    403: _("Check the header with the token, and what the collector permits it."),
    404: _("Check the path of the declared URL."),
    413: _("Raise the limit of the size of a request at the collector."),
    429: _("Wait: the collector asked for fewer requests. If it lasts, raise its limit."),
}
_SERVER_ERROR = _("Check the log of the collector: the fault is on its side.")
_OTHER_STATUS = _("Check the declared URL, its headers, and the log of the collector.")


def get_fault_text(fault: str) -> FaultText:
    """Return what that fault means and its remedy; for an unknown one its code and a reference to
    the manual.
    """
    if text := FAULT_TEXTS.get(fault):
        return text
    if match := re.fullmatch(r"http_(\d{3})", fault):
        status = int(match[1])
        meaning = gettext("The collector answered with the HTTP status %(status)d.") % {
            "status": status
        }
        return FaultText(
            meaning, _HTTP_TEXTS.get(status, _SERVER_ERROR if status >= 500 else _OTHER_STATUS)
        )
    meaning = gettext("The delivery failed with the code %(code)s.") % {"code": fault}
    return FaultText(meaning, _("Look the code up in the manual."))
