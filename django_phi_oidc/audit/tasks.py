"""Celery tasks of the audit log."""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime

from .._internal import clock
from .._internal.periodic_task import periodic_task, row_pruner
from ..crypto.conf import get_key_source
from ..extensions import event_queues
from . import configuration, outbox, partitions, throttling, triggers
from .errors import SealingRefused
from .log import (
    cosigned_checkpoints,
    sequencer,
    signing_keys,
    tile_export,
    tile_store,
    verification_schedule,
    witnesses,
)
from .log.cosigned_checkpoints import delete_old_cosignatures
from .recorder import raise_audit_alert


@periodic_task("phi_oidc.drain_outbox")
def drain_outbox() -> None:
    """Write the events of counted refusals, and move the outbox and the event queues of this
    machine to the audit log.
    """
    try:
        throttling.flush_refusal_counts(now=clock.now())
    finally:
        try:
            outbox.flush()
        finally:
            for queue in event_queues:
                queue.flush(now=clock.now())


@periodic_task("phi_oidc.record_configuration")
def record_configuration() -> None:
    """Record the configuration of this worker, with an event if it has changed."""
    configuration.record_configuration(configuration.WORKER_COMPONENT, now=clock.now())


@periodic_task("phi_oidc.seal")
def seal() -> None:
    """Append new events to the log if this worker has the signing key.

    The new checkpoint goes to the witnesses. Raise an alert if events are overdue, if some were
    removed from the queue, if the triggers were changed, or if no quorum of witnesses has cosigned
    in time.
    """
    # Callbacks run also if the sealing or another callback fails.
    with ExitStack() as stack:
        for rule, count in _ALERT_COUNTS.items():
            stack.callback(_raise_counted_alert, rule, count)
        try:
            # Inside the block: events are overdue soon if the key can't be read.
            key = signing_keys.find_signing_key()
            if key is not None:
                deque(sequencer.append_all_to_log(key=key, clock=clock.now), maxlen=0)
                # After the commit, so that no witness delays a seal.
                witnesses.submit_newest_checkpoint(clock=clock.now)
        except SealingRefused:
            raise_audit_alert("sealing_refused", now=clock.now())
            raise


@periodic_task("phi_oidc.export_tiles")
def export_tiles() -> None:
    """Export new tiles of the log, if AUDIT['tiles'] is declared."""
    if store := tile_store.find_tile_store():
        tile_export.export_tiles(store, keys=signing_keys.get_public_keys())


@periodic_task("phi_oidc.verify")
def verify() -> None:
    """Verify the part of the log that is due, if this worker has the signing key: the whole log in
    two weeks.
    """
    if key := signing_keys.find_signing_key():
        verification_schedule.verify_next_part(key, now=clock.now())


@periodic_task("phi_oidc.create_partitions")
def create_partitions() -> None:
    """Create the partitions of the next months, if the events have partitions and this worker has
    the signing key.
    """
    if get_key_source("audit_signing"):
        partitions.create_partitions()


_ALERT_COUNTS: Mapping[str, Callable[[], int]] = {
    "sealing_lag": lambda: sequencer.count_overdue_events(now=clock.now()),
    "event_unqueued": lambda: sequencer.count_unqueued_events(now=clock.now()),
    "witness_quorum": lambda: cosigned_checkpoints.count_unwitnessed_checkpoints(now=clock.now()),
    "protection_altered": lambda: len(triggers.list_deviations()),
}


def _raise_counted_alert(rule: str, get_count: Callable[[], int]) -> None:
    if count := get_count():
        raise_audit_alert(rule, now=clock.now(), count=count)


@row_pruner
def prune_cosignatures(*, now: datetime, before: datetime) -> None:
    """Delete the cosignatures of old checkpoints."""
    delete_old_cosignatures()
