"""The state of each sink, for the admin and the command: what it has, what it lacks, and what
prevents delivery.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ...audit.log.cursor import find_oldest_sealing_time, get_newest_tree_size
from .declaration import SinkDeclaration
from .delivery import STOPPING_FAULTS, find_cursors, is_leased
from .models import SinkCursor

WORKER_MISSING_AFTER = timedelta(minutes=2)
"""A healthy sink is due in each run of the task. One that has been due for so long shows that no
worker runs it.
"""


class SinkState(StrEnum):
    """What an officer has to know about a sink first; in the order of severity."""

    CAUGHT_UP = "caught_up"
    BEHIND = "behind"
    """It lacks events, and the last attempt did not fail."""
    LATE = "late"
    """It has lacked an event for longer than `lag_alert`."""
    FAILING = "failing"
    """The last attempt failed; the next one may succeed."""
    NO_WORKER = "no_worker"
    """It is due, and no worker attempts to deliver."""
    STOPPED = "stopped"
    """An operator must act before anything is delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatus:
    """A declared sink, its cursor, and its distance to the log."""

    declaration: SinkDeclaration
    cursor: SinkCursor
    missing_count: int
    """Sealed events that it lacks; negative if it has more than the log."""
    lag: timedelta
    """How long ago the first event that it lacks was sealed; 0 if it lacks none."""
    is_worker_missing: bool

    @property
    def is_late(self) -> bool:
        return self.lag > self.declaration.lag_alert

    @property
    def state(self) -> SinkState:
        """The most important of the states that apply."""
        if self.cursor.last_fault in STOPPING_FAULTS:
            return SinkState.STOPPED
        if self.is_worker_missing:
            return SinkState.NO_WORKER
        if self.cursor.last_fault:
            return SinkState.FAILING
        if self.is_late:
            return SinkState.LATE

        if self.lag or self.missing_count:
            return SinkState.BEHIND
        return SinkState.CAUGHT_UP

    @property
    def severity(self) -> int:
        return list(SinkState).index(self.state)

    @property
    def needs_action(self) -> bool:
        return self.state not in (SinkState.CAUGHT_UP, SinkState.BEHIND)


def list_sink_statuses(sinks: Mapping[str, SinkDeclaration], *, now: datetime) -> list[SinkStatus]:
    """Return the state of these sinks, by two SELECTs, and one more for each position behind the
    log.

    Raises: AuditUnavailable.
    """
    if not sinks:
        return []
    cursors = find_cursors(tuple(sinks), now=now)
    log_size = get_newest_tree_size()
    sealed_at = {}
    for size in {row.checkpoint_size for row in cursors.values()} - {log_size}:
        sealed_at[size] = find_oldest_sealing_time(size)
    sink_statuses = []
    for name, cursor in cursors.items():
        sink_statuses.append(
            _build_status(
                sinks[name],
                cursor,
                log_size=log_size,
                sealed_at=sealed_at.get(cursor.checkpoint_size),
                now=now,
            )
        )
    return sink_statuses


def _build_status(
    declaration: SinkDeclaration,
    cursor: SinkCursor,
    *,
    log_size: int,
    sealed_at: datetime | None,
    now: datetime,
) -> SinkStatus:
    # Not `cursor.lagging`, which nothing updates while no worker runs.
    if sealed_at:
        lag = max(now - sealed_at, timedelta(0))
    else:
        lag = timedelta(0)

    # A sink without a row was never due: what it lacks shows for how long no worker has run.
    if cursor._state.adding:
        overdue = lag
    else:
        overdue = now - cursor.due_at

    return SinkStatus(
        declaration=declaration,
        cursor=cursor,
        missing_count=log_size - cursor.tree_size,
        lag=lag,
        is_worker_missing=overdue > WORKER_MISSING_AFTER and not is_leased(cursor, now=now),
    )
