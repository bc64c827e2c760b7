"""The event `role.changed`: groups, permissions or flags of an account, or permissions of a group,
have changed.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from .._internal import clock
from .._internal.batches import split_into_batches
from ..audit.events import MAX_ITEMS, Action, NewEvent
from ..audit.outbox import enqueue_many
from ..audit.request_context import current_origin


class RoleChange(NamedTuple):
    """One change of one account or group."""

    resource: str
    """The account (`user/…`) or the group (`group/…`)."""
    key: str
    """The key in the detail of the event: `added`, `removed` (groups), `granted`, `withdrawn`
    (flags), `permissions_added`, `permissions_removed`.
    """
    name: str
    """Of the group, flag or permission."""


_collected_changes: ContextVar[list[RoleChange] | None] = ContextVar(
    "django_phi_oidc.access.roles", default=None
)


@contextmanager
def collect_role_changes() -> Iterator[list[RoleChange]]:
    """Yield a list of the changes that are made in this block. The caller records them, in the same
    transaction.
    """
    changes: list[RoleChange] = []
    token = _collected_changes.set(changes)
    try:
        yield changes
    finally:
        _collected_changes.reset(token)


def record_role_changes(changes: Iterable[RoleChange]) -> None:
    """Write the events of the changes in the open transaction, with the origin of the current
    request or command.

    Requires: the caller, or Django, marks the transaction for rollback after an error. Raises:
    KeyMissing, DatabaseError.
    """
    if (collected := _collected_changes.get()) is not None:
        collected.extend(changes)
        return
    enqueue_many(list(build_role_events(changes, origin=current_origin(), now=clock.now())))


def build_role_events(changes: Iterable[RoleChange], **event_fields: Any) -> Iterator[NewEvent]:
    """Yield an event for each resource, or several if its names do not fit into the lists of one
    event.
    """
    for resource, own in groupby(sorted(changes), attrgetter("resource")):
        for batch in split_into_batches(own, MAX_ITEMS):
            detail: dict[str, list[str]] = {}
            for _, key, name in batch:
                detail.setdefault(key, []).append(name)
            yield NewEvent(
                action=Action.ROLE_CHANGED, resource=resource, detail=detail, **event_fields
            )
