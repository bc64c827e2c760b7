"""Record which undeclared claims a provider sends: one event for each provider and set of names."""

import json
from collections.abc import Sequence

from django.db import transaction

from ..audit.events import NewEvent
from ..audit.outbox import enqueue_many
from ..replay.cache import mark_used_in_transaction, was_used
from .models import FOREVER

_KIND = "overfetched"
_MAX_REMEMBERED = 1000
_remembered: set[str] = set()
"""The providers and names whose event is committed, as far as this process knows. The table of used
identifiers knows all.
"""


def record_overfetched(names: Sequence[str], event: NewEvent) -> None:
    """Write the event of a sign-in that dropped these claims in the caller's transaction, unless
    there was one before.

    names: sorted. event: a `claim.overfetched` with its provider, but without its detail. Takes no
    statement for names that this process has seen committed, and one SELECT for others that are
    recorded. Spec: OpenID Connect Core 5.3.2.
    """
    identifier = json.dumps([event.provider, *names])
    if not names or identifier in _remembered:
        return
    if not was_used(_KIND, identifier) and mark_used_in_transaction(
        _KIND, identifier, expires_at=FOREVER
    ):
        enqueue_many([event._replace(detail={"claims": list(names)})])
    # A rollback removes the mark and the event.
    transaction.on_commit(lambda: _remember(identifier))


def forget_remembered() -> None:
    """Read the database again at the next sign-in: for tests."""
    _remembered.clear()


def _remember(identifier: str) -> None:
    if len(_remembered) >= _MAX_REMEMBERED:
        _remembered.clear()
    _remembered.add(identifier)
