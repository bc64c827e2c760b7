"""Requests to a log collector or a FHIR server, and the meaning of their responses. No Django.

Spec: NDJSON; FHIR R4 http.html#transaction (batch); IHE ITI-20, the RESTful option.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ...audit.events import canonical_json
from ...audit.formats import item_to_fhir, item_to_line
from ...audit.formats.items import LogFormat, LogItem, SealedEvent
from ...http.transport import (
    TransportRequest,
    TransportResponse,
    parse_json_body,
    parse_retry_after,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    accepted: int
    """How many items are delivered, counted from the first."""
    fault: str = ""
    """A code; empty when all are delivered."""
    needs_operator: bool = False
    """An operator must fix something before another attempt can succeed."""
    retry_after: timedelta | None = None


def build_lines_request(
    items: Sequence[LogItem],
    *,
    url: str,
    log_format: LogFormat,
    headers: Mapping[str, str],
    hostname: str,
) -> TransportRequest:
    """Return the POST of items, one per line."""
    body = "".join(f"{item_to_line(item, log_format, hostname=hostname)}\n" for item in items)

    if log_format == "cef":
        content_type = "text/plain; charset=utf-8"
    else:
        content_type = "application/x-ndjson"

    all_headers = {**headers, "Content-Type": content_type}
    return TransportRequest(method="POST", url=url, headers=all_headers, body=body.encode("utf-8"))


def build_bundle_request(
    items: Sequence[LogItem], *, url: str, headers: Mapping[str, str], hostname: str
) -> TransportRequest:
    """Return the POST of items as a batch, whose entries a server accepts or refuses one by one."""
    entries = []
    for item in items:
        entry: dict[str, Any] = {
            "resource": item_to_fhir(item, hostname=hostname),
            "request": {"method": "POST", "url": "AuditEvent"},
        }
        if isinstance(item, SealedEvent):
            entry["fullUrl"] = f"urn:uuid:{item.authenticated_event.event.id}"
        entries.append(entry)
    body = canonical_json({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode(
        "utf-8"
    )
    fhir_headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
    all_headers = {**headers, **fhir_headers, "Prefer": "return=minimal"}
    return TransportRequest(method="POST", url=url, headers=all_headers, body=body)


def process_lines_response(response: TransportResponse, *, count: int) -> SendResult:
    """Return the result for count lines: 2xx accepts all of them, any other status none."""
    if 200 <= response.status < 300:
        return SendResult(accepted=count)
    return _http_failure(response.status, retry_after=parse_retry_after(response))


def process_bundle_response(response: TransportResponse, *, count: int) -> SendResult:
    """Return the result for a batch of count entries; never raises.

    The entries before the first refused one are delivered. Accepted entries after it are sent
    again.
    """
    if not 200 <= response.status < 300:
        return _http_failure(response.status, retry_after=parse_retry_after(response))
    entries = (parse_json_body(response) or {}).get("entry")
    if not isinstance(entries, list) or len(entries) != count:
        return SendResult(accepted=0, fault="response_invalid")
    for accepted, entry in enumerate(entries):
        inner = None
        if isinstance(entry, dict):
            inner = entry.get("response")

        text = None
        if isinstance(inner, dict):
            text = inner.get("status")

        # The status is a text that begins with three digits.
        if not isinstance(text, str) or not re.match("[0-9]{3}", text):
            return SendResult(accepted=accepted, fault="response_invalid")
        status = int(text[:3])
        if not 200 <= status < 300:
            return _http_failure(status, accepted=accepted)
    return SendResult(accepted=count)


def _http_failure(
    status: int, *, accepted: int = 0, retry_after: timedelta | None = None
) -> SendResult:
    """A collector that refuses all items permanently gets them again too, at long intervals.
    (`refused_items` passes over single ones.)
    """
    is_permanent = 300 <= status < 500 and status not in (408, 429)
    return SendResult(
        accepted=accepted,
        fault=f"http_{status}",
        needs_operator=is_permanent,
        retry_after=retry_after,
    )
