"""The output formats of the log: pure functions of an event or a checkpoint. No Django.

Native JSON is the event's canonical text with two more members. Without `leaf_index` and `mac` it
is, byte for byte, the input of the MAC and the leaf hash, so a copy can be verified without the
database.
"""

import json
from typing import Any

from ..events import canonical_json, serialize_event
from .cef import checkpoint_to_cef, event_to_cef
from .fhir import checkpoint_to_fhir, event_to_fhir
from .items import LogFormat, LogItem, SealedCheckpoint, SealedEvent, format_instant
from .ocsf import checkpoint_to_ocsf, event_to_ocsf


def item_to_line(item: LogItem, log_format: LogFormat, *, hostname: str) -> str:
    """Return the item as one line of text, without a line break. hostname: that of the sending
    machine.
    """
    if log_format == "cef":
        if isinstance(item, SealedEvent):
            return event_to_cef(item)
        return checkpoint_to_cef(item)
    if log_format == "ocsf":
        return canonical_json(_item_to_ocsf(item))
    if log_format == "fhir":
        return canonical_json(item_to_fhir(item, hostname=hostname))
    return canonical_json(_item_to_json(item))


def item_to_fhir(item: LogItem, *, hostname: str) -> dict[str, Any]:
    """Return the item as an AuditEvent."""
    if isinstance(item, SealedEvent):
        return event_to_fhir(item, hostname=hostname)
    return checkpoint_to_fhir(item, hostname=hostname)


def _item_to_ocsf(item: LogItem) -> dict[str, Any]:
    if isinstance(item, SealedEvent):
        return event_to_ocsf(item)
    return checkpoint_to_ocsf(item)


def _item_to_json(item: LogItem) -> dict[str, Any]:
    if isinstance(item, SealedEvent):
        return event_to_json(item)
    return checkpoint_to_json(item)


def event_to_json(item: SealedEvent) -> dict[str, Any]:
    """Return the event's own members, `mac` and `leaf_index`. Schema:
    docs/reference/event.schema.json.
    """
    members: dict[str, Any] = json.loads(serialize_event(item.authenticated_event))
    return {**members, "leaf_index": item.leaf_index}


def checkpoint_to_json(item: SealedCheckpoint) -> dict[str, Any]:
    """Return the checkpoint's members. Schema: docs/reference/event.schema.json."""
    return {
        "checkpoint": item.note,
        "epoch": item.epoch,
        "root_hash": item.root_hash.hex(),
        "sealed_at": format_instant(item.sealed_at),
        "tree_size": item.tree_size,
    }
