"""What is posted to a collector or a FHIR server, and what its answer means. No Django.

Spec: NDJSON; FHIR R4 http.html#transaction (batch); IHE ITI-20, the RESTful option.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..audit.formats import compact_json, item_to_fhir, item_to_line
from ..audit.formats.items import LogItem, SealedEvent
from ..config.sinks import LogFormat
from ..oidc.revocation import parse_retry_after
from ..oidc.transport import TransportRequest, TransportResponse, parse_json_body


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """What became of a batch."""

    accepted: int
    """How many items, from the first on, are delivered."""
    fault: str = ""
    """A code; empty when all are."""
    needs_operator: bool = False
    """A person must mend something before another attempt makes sense."""
    retry_after: timedelta | None = None
    """Retry-After."""


def build_lines_request(
    items: Sequence[LogItem], *, url: str, log_format: LogFormat, headers: Mapping[str, str], hostname: str
) -> TransportRequest:
    """Return the POST of items, a line each."""
    body = "".join(f"{item_to_line(item, log_format, hostname=hostname)}\n" for item in items)
    kind = "text/plain; charset=utf-8" if log_format == "cef" else "application/x-ndjson"
    return TransportRequest(
        method="POST", url=url, headers={**headers, "Content-Type": kind}, body=body.encode("utf-8")
    )


def build_bundle_request(
    items: Sequence[LogItem], *, url: str, headers: Mapping[str, str], hostname: str
) -> TransportRequest:
    """Return the POST of items as a batch, whose entries a server takes or refuses one by one."""
    entries = [
        {
            **({"fullUrl": f"urn:uuid:{item.authenticated_event.event.id}"} if isinstance(item, SealedEvent) else {}),
            "resource": item_to_fhir(item, hostname=hostname),
            "request": {"method": "POST", "url": "AuditEvent"},
        }
        for item in items
    ]
    body = compact_json({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode("utf-8")
    given = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json", "Prefer": "return=minimal"}
    return TransportRequest(method="POST", url=url, headers={**headers, **given}, body=body)


def process_lines_response(response: TransportResponse, *, count: int) -> SendResult:
    """Return what the answer to count lines means: 2xx took all, anything else none."""
    if 200 <= response.status < 300:
        return SendResult(accepted=count)
    return _http_failure(response.status, retry_after=parse_retry_after(response))


def process_bundle_response(response: TransportResponse, *, count: int) -> SendResult:
    """Return what the answer to a batch of count entries means; never raises.

    The entries before the first that was not taken are delivered. What was taken behind it is sent again.
    """
    if not 200 <= response.status < 300:
        return _http_failure(response.status, retry_after=parse_retry_after(response))
    entries = (parse_json_body(response) or {}).get("entry")
    if not isinstance(entries, list) or len(entries) != count:
        return SendResult(accepted=0, fault="response_invalid")
    for accepted, entry in enumerate(entries):
        status = _find_entry_status(entry)
        if status is None:
            return SendResult(accepted=accepted, fault="response_invalid")
        if not 200 <= status < 300:
            refused = _http_failure(status, retry_after=None)
            return SendResult(accepted=accepted, fault=refused.fault, needs_operator=refused.needs_operator)
    return SendResult(accepted=count)


def _http_failure(status: int, *, retry_after: timedelta | None) -> SendResult:
    """Nothing may be skipped, so what a collector refuses for good is offered again too, slowly."""
    return SendResult(
        accepted=0, fault=f"http_{status}", needs_operator=_is_permanent_failure(status), retry_after=retry_after
    )


def _is_permanent_failure(status: int) -> bool:
    return 300 <= status < 500 and status not in (408, 429)


def _find_entry_status(entry: Any) -> int | None:
    """Return the status of a batch's entry: it begins with three digits. None when it is none."""
    response = entry.get("response") if isinstance(entry, dict) else None
    text = response.get("status") if isinstance(response, dict) else None
    digits = text[:3] if isinstance(text, str) else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) == 3 else None
