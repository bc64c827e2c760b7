"""The formats that the log is delivered in: pure functions of an event or a checkpoint. No Django.

Native JSON is the event's canonical text with `leaf_index` in it: without that member, and with `mac` apart, a copy
is byte for byte what the MAC and the leaf hash are over, so that it can be verified without the database.
"""

import json
from datetime import UTC
from typing import Any

from ..audit.events import event_text
from .cef import checkpoint_to_cef, event_to_cef
from .declaration import Format
from .fhir import checkpoint_to_fhir, event_to_fhir
from .items import Item, SealedCheckpoint, SealedEvent
from .ocsf import checkpoint_to_ocsf, event_to_ocsf


def to_line(item: Item, chosen: Format, *, site: str) -> str:
    """Return the item as one line of text, without a line break in or after it. site: the machine's name."""
    if chosen == "cef":
        return event_to_cef(item) if isinstance(item, SealedEvent) else checkpoint_to_cef(item)
    if chosen == "ocsf":
        return compact_json(event_to_ocsf(item) if isinstance(item, SealedEvent) else checkpoint_to_ocsf(item))
    if chosen == "fhir":
        return compact_json(to_fhir(item, site=site))
    return compact_json(event_to_json(item) if isinstance(item, SealedEvent) else checkpoint_to_json(item))


def to_fhir(item: Item, *, site: str) -> dict[str, Any]:
    """Return the item as an AuditEvent."""
    if isinstance(item, SealedEvent):
        return event_to_fhir(item, site=site)
    return checkpoint_to_fhir(item, site=site)


def event_to_json(item: SealedEvent) -> dict[str, Any]:
    """Return the event's own members, `mac` and `leaf_index`. Schema: docs/reference/event.schema.json."""
    members: dict[str, Any] = json.loads(event_text(item.finished))
    return {**members, "leaf_index": item.leaf_index}


def checkpoint_to_json(item: SealedCheckpoint) -> dict[str, Any]:
    """Return the checkpoint's members. Schema: docs/reference/event.schema.json."""
    sealed_at = item.sealed_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return {
        "checkpoint": item.note,
        "epoch": item.epoch,
        "root_hash": item.root_hash.hex(),
        "sealed_at": f"{sealed_at}Z",
        "tree_size": item.tree_size,
    }


# As the canonical form has it; json.dumps escapes every control character, so a line stays one line.
compact_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
