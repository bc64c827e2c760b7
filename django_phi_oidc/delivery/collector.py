"""What is posted to a collector or a FHIR server, and what its answer means. No Django.

Spec: NDJSON; FHIR R4 http.html#transaction (batch); IHE ITI-20, the RESTful option.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..oidc.revocation import read_retry_after
from ..oidc.transport import Request, Response, json_members
from .declaration import Format
from .formats import compact_json, to_fhir, to_line
from .items import Item, SealedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a batch."""

    accepted: int
    """How many items, from the first on, are delivered."""
    fault: str = ""
    """A code; empty when all are."""
    slowly: bool = False
    """A person must mend something before another attempt makes sense."""
    asked: timedelta | None = None
    """Retry-After."""


def build_lines_request(
    items: Sequence[Item], *, url: str, chosen: Format, headers: Mapping[str, str], site: str
) -> Request:
    """Return the POST of items, a line each."""
    body = "".join(f"{to_line(item, chosen, site=site)}\n" for item in items)
    kind = "text/plain; charset=utf-8" if chosen == "cef" else "application/x-ndjson"
    return Request(method="POST", url=url, headers={**headers, "Content-Type": kind}, body=body.encode("utf-8"))


def build_bundle_request(items: Sequence[Item], *, url: str, headers: Mapping[str, str], site: str) -> Request:
    """Return the POST of items as a batch, whose entries a server takes or refuses one by one."""
    entries = [
        {
            **({"fullUrl": f"urn:uuid:{item.finished.event.id}"} if isinstance(item, SealedEvent) else {}),
            "resource": to_fhir(item, site=site),
            "request": {"method": "POST", "url": "AuditEvent"},
        }
        for item in items
    ]
    body = compact_json({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode("utf-8")
    given = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json", "Prefer": "return=minimal"}
    return Request(method="POST", url=url, headers={**headers, **given}, body=body)


def judge_lines_response(response: Response, *, count: int) -> Answer:
    """Return what the answer to count lines means: 2xx took all, anything else none."""
    if 200 <= response.status < 300:
        return Answer(accepted=count)
    return _refused(response.status, asked=read_retry_after(response))


def judge_bundle_response(response: Response, *, count: int) -> Answer:
    """Return what the answer to a batch of count entries means; never raises.

    The entries before the first that was not taken are delivered. What was taken behind it is sent again.
    """
    if not 200 <= response.status < 300:
        return _refused(response.status, asked=read_retry_after(response))
    entries = (json_members(response) or {}).get("entry")
    if not isinstance(entries, list) or len(entries) != count:
        return Answer(accepted=0, fault="response_invalid")
    for accepted, entry in enumerate(entries):
        status = _status(entry)
        if status is None:
            return Answer(accepted=accepted, fault="response_invalid")
        if not 200 <= status < 300:
            refused = _refused(status, asked=None)
            return Answer(accepted=accepted, fault=refused.fault, slowly=refused.slowly)
    return Answer(accepted=count)


def _refused(status: int, *, asked: timedelta | None) -> Answer:
    """Nothing may be skipped, so what a collector refuses for good is offered again too, slowly."""
    return Answer(accepted=0, fault=f"http_{status}", slowly=_is_final(status), asked=asked)


def _is_final(status: int) -> bool:
    return 300 <= status < 500 and status not in (408, 429)


def _status(entry: Any) -> int | None:
    """Return the status of a batch's entry: it begins with three digits. None when it is none."""
    response = entry.get("response") if isinstance(entry, dict) else None
    text = response.get("status") if isinstance(response, dict) else None
    digits = text[:3] if isinstance(text, str) else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) == 3 else None
