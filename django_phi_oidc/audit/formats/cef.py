"""ArcSight's Common Event Format, version 0: one line of header and extension. No Django.

Uses only keys of the published dictionary; fields without one are custom strings with a label.
Spec: Implementing ArcSight Common Event Format, version 25 or later: Header Information, Character
Encoding.
"""

import ipaddress
from typing import Any

from .items import SealedCheckpoint, SealedEvent, epoch_milliseconds

PRODUCT = "django_phi_oidc"
_SEVERITY_BY_OUTCOME = {"success": 3, "failure": 6, "error": 8}
_ALERT_SEVERITY = 9


def event_to_cef(item: SealedEvent) -> str:
    """Return the event as one line."""
    event = item.authenticated_event.event
    if event.action == "alert.raised":
        severity = _ALERT_SEVERITY
    else:
        severity = _SEVERITY_BY_OUTCOME[event.outcome]

    extension: dict[str, Any] = {
        "rt": epoch_milliseconds(event.occurred_at),
        "externalId": str(event.id),
        "cat": event.action,
        "outcome": event.outcome,
        "reason": event.reason,
        "suid": event.actor,
        "duid": event.subject,
        "destinationServiceName": event.provider,
        **_address_fields(event.client_ip),
        "cn1": item.leaf_index,
        "cn1Label": "leafIndex",
    }
    if event.on_behalf_of:
        # The six custom strings are taken; flexString1 is in the dictionary for such a field.
        extension["flexString1"] = event.on_behalf_of
        extension["flexString1Label"] = "onBehalfOf"
    custom = {
        "session": event.session,
        "purpose": event.purpose,
        "resource": event.resource,
        "requestId": event.request_id,
        "mac": f"{event.mac_key}:{item.authenticated_event.mac.hex()}",
        "detail": "" if event.detail == "{}" else event.detail,
    }
    for number, (label, value) in enumerate(custom.items(), start=1):
        if value:
            extension |= {f"cs{number}": value, f"cs{number}Label": label}
    return _format_line(event.action, event.action, severity, extension, version=event.v)


def checkpoint_to_cef(item: SealedCheckpoint) -> str:
    """Return the checkpoint as one line; the note is in `cs1`, with its line breaks as `\\n`."""
    extension = {
        "rt": epoch_milliseconds(item.sealed_at),
        "cat": "checkpoint",
        "cn1": item.tree_size,
        "cn1Label": "treeSize",
        "cn2": item.epoch,
        "cn2Label": "epoch",
        "cs1": item.note,
        "cs1Label": "note",
        "cs2": item.root_hash.hex(),
        "cs2Label": "rootHash",
    }
    return _format_line(
        "checkpoint", "checkpoint", _SEVERITY_BY_OUTCOME["success"], extension, version=1
    )


def _format_line(
    signature: str, name: str, severity: int, extension: dict[str, Any], *, version: int
) -> str:
    header = []
    for part in (PRODUCT, PRODUCT, version, signature, name, severity):
        header.append(_escape_header(str(part)))
    pairs = []
    for key, value in extension.items():
        if value != "":
            pairs.append(f"{key}={_escape_value(str(value))}")
    return f"CEF:0|{'|'.join(header)}|{' '.join(pairs)}"


def _escape_header(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\r", " ").replace("\n", " ")


def _escape_value(text: str) -> str:
    return text.replace("\\", "\\\\").replace("=", "\\=").replace("\r", "\\r").replace("\n", "\\n")


def _address_fields(text: str) -> dict[str, str]:
    """Return the address fields; `src` takes IPv4 only."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return {}
    if address.version == 4:
        return {"src": text}
    return {"c6a2": text, "c6a2Label": "Source IPv6 Address"}
