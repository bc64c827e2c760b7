"""A log as the sequencer writes it, built by hand: events, leaves, and a checkpoint."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from django_phi_oidc.audit.events import Action, AuthenticatedEvent, NewEvent, Origin
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf
from django_phi_oidc.audit.storage import authenticate_event, insert_events

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ORIGIN = "portal.example/audit"


class Clock:
    """A clock that only advances by `go_on`."""

    def __init__(self) -> None:
        self.now = NOW + timedelta(minutes=1)

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, **duration: float) -> None:
        self.now += timedelta(**duration)


def finished(action: str = Action.CLAIM_REVEALED, **fields: Any) -> AuthenticatedEvent:
    """Return an authenticated event that is not in the database."""
    values: dict[str, Any] = {
        "origin": Origin(actor="7", session="s-1", client_ip="203.0.113.9", request_id="r-1"),
        "now": NOW,
        **fields,
    }
    return authenticate_event(NewEvent(action=action, **values), allow_declaration=True)


def seal(count: int, *, sealed_at: datetime = NOW, epoch: int = 1, salt: str = "", origin: str = ORIGIN) -> int:
    """Append count events and a checkpoint, and return the new tree size."""
    newest = AuditCheckpoint.objects.order_by("-tree_size").first()
    start = newest.tree_size if newest else 0
    new = [finished(now=NOW + timedelta(seconds=start + number)) for number in range(count)]
    if new:
        insert_events(new)
    AuditLeaf.objects.bulk_create(
        AuditLeaf(leaf_index=start + number, event_id=item.event.id, leaf_hash=digest(f"{item.event.id}{salt}"))
        for number, item in enumerate(new)
    )
    checkpoint(start + count, sealed_at=sealed_at, epoch=epoch, salt=salt, origin=origin)
    return start + count


def checkpoint(size: int, *, sealed_at: datetime = NOW, epoch: int = 1, salt: str = "", origin: str = ORIGIN) -> None:
    root = digest(f"root {size}{salt}")
    note = f"{origin}\n{size}\n{root.hex()}\n\n— {origin} c2lnbmF0dXJl\n"
    AuditCheckpoint.objects.create(tree_size=size, root_hash=root, epoch=epoch, sealed_at=sealed_at, note=note)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def sealed_order() -> list[str]:
    """Return the expected deliveries in order: event ids, each batch followed by `checkpoint-<epoch>-<size>`."""
    ids = {leaf.leaf_index: str(leaf.event_id) for leaf in AuditLeaf.objects.all()}
    assert AuditEvent.objects.filter(id__in=ids.values()).count() == len(ids)
    order: list[str] = []
    start = 0
    for row in AuditCheckpoint.objects.order_by("tree_size"):
        order += [ids[index] for index in range(start, row.tree_size)]
        order.append(f"checkpoint-{row.epoch}-{row.tree_size}")
        start = row.tree_size
    return order


def first_receipts(received: list[str]) -> list[str]:
    """Return the received items without repetitions."""
    return list(dict.fromkeys(received))
