"""Verify the whole log in two weeks, a part at a time, so that changes of old events are found
without a full run.

The position is in a signed record, so an attacker with write access to the database cannot move it
past an event. A removed record begins the cycle again at a random place, and each run also verifies
a random part: an attacker who puts old records back stops the cycle, but cannot choose what is
verified.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

from ...errors import AuditUnavailable
from ..errors import ColumnsAltered
from ..events import Action, EventOutcome, Origin
from ..merkle.checkpoint import LogKey, NoteSigner
from ..recorder import record
from ..storage import translate_database_errors
from .archive_files import list_restore_events
from .archive_records import find_detached_leaves, read_archive_record
from .findings import VerificationSummary
from .ranges import LEAVES_PER_PART, Part, align_part, draw_start, find_newest_checkpoint
from .signing_keys import get_public_keys
from .verification_records import read_record, write_record
from .verifier import UNSEALED_AFTER, add_unread_log, verify_log

logger = logging.getLogger("phi_oidc.audit")
CYCLE = timedelta(days=14)
RUN_INTERVAL = timedelta(minutes=10)
"""Between two runs of the task, by default."""
MAX_LEAVES_PER_RUN = 5_000_000
"""About forty seconds of a worker."""
_RECORD = "schedule"
_MAX_LOGGED_FINDINGS = 20


@dataclass(slots=True, kw_only=True)
class _Cycle:
    """The state between two runs: from leaf `first` to the end of the log, and from leaf 0 to
    `first`.
    """

    started_at: str
    first: int
    position: int
    """Verified up to this leaf."""
    is_wrapped: bool = False
    """The end of the log was reached."""
    is_finished: bool = False
    events: int = 0
    findings: int = 0
    kinds: list[str] = field(default_factory=list)

    def count_verified_leaves(self, tree_size: int) -> int:
        return self.position - self.first + (tree_size if self.is_wrapped else 0)


def verify_next_part(key: NoteSigner, *, now: datetime) -> VerificationSummary:
    """Verify what is due of the log since the last run, and a random part.

    `audit.verified` is recorded at the end of each cycle, and for each run with faults.
    Raises: AuditUnavailable, KeyMissing.
    """
    summary = VerificationSummary()
    try:
        _verify_next_part(key, summary, now=now)
    except ColumnsAltered as error:
        logger.error("Audit log: %s", add_unread_log(error, summary).render_line())  # noqa: TRY400 -- as other findings
        _record_faults(summary, now=now)
    return summary


def _verify_next_part(key: NoteSigner, summary: VerificationSummary, *, now: datetime) -> None:
    keys = get_public_keys(key)
    with translate_database_errors():
        newest = find_newest_checkpoint(keys)
        if newest is None:
            # No checkpoint is signed yet. Any leaf or node is a fault, but events may wait for the
            # first seal.
            _verify_parts(
                [], keys, summary, now=now, unsealed_after=now - datetime.min.replace(tzinfo=UTC)
            )
            _record_faults(summary, now=now)
            return
        tree_size = newest.tree_size
        cycle = _read_cycle(keys, tree_size, now=now)
        parts = _advance(cycle, tree_size, keys, now=now)
        random_start = draw_start(tree_size)
        parts.append((random_start, min(random_start + LEAVES_PER_PART, tree_size)))
        try:
            _verify_parts(parts, keys, summary, now=now)
        except AuditUnavailable:
            # For example, tiles cannot be read. Faults that were found before are recorded
            # nevertheless.
            _record_faults(summary, now=now)
            raise
    cycle.events += summary.events
    cycle.findings += summary.fault_count
    cycle.kinds = sorted({*cycle.kinds, *(kind.value for kind in summary.counts_by_kind)})
    is_end = not cycle.is_finished and cycle.count_verified_leaves(tree_size) >= tree_size
    _record_faults(summary, now=now)
    if is_end:
        cycle.is_finished = True
        detail = {
            "tree_size": tree_size,
            "events": cycle.events,
            "findings": cycle.findings,
            "kinds": cycle.kinds,
        }

        outcome: EventOutcome
        if cycle.findings:
            outcome = "failure"
        else:
            outcome = "success"

        record(Action.AUDIT_VERIFIED, origin=Origin(), now=now, outcome=outcome, detail=detail)
    write_record(_RECORD, asdict(cycle), key)


def _record_faults(summary: VerificationSummary, *, now: datetime) -> None:
    if summary.fault_count:
        detail = summary.build_event_detail()
        record(Action.AUDIT_VERIFIED, origin=Origin(), now=now, outcome="failure", detail=detail)


def _read_cycle(keys: Sequence[LogKey], tree_size: int, *, now: datetime) -> _Cycle:
    content = read_record(_RECORD, keys)
    cycle = None
    if content:
        cycle = _Cycle(**content)

    is_over = (
        cycle is not None
        and cycle.is_finished
        and now >= datetime.fromisoformat(cycle.started_at) + CYCLE
    )
    if cycle is None or is_over or max(cycle.first, cycle.position) > tree_size:
        first = align_part((draw_start(tree_size), tree_size), keys)[0]
        return _Cycle(started_at=now.isoformat(), first=first, position=first)
    return cycle


def _advance(cycle: _Cycle, tree_size: int, keys: Sequence[LogKey], *, now: datetime) -> list[Part]:
    """Move the position of the cycle to what is due now, and return the parts up to there."""
    elapsed = now - datetime.fromisoformat(cycle.started_at) + RUN_INTERVAL
    due = min(tree_size, math.ceil(tree_size * (elapsed / CYCLE)))
    count = min(due - cycle.count_verified_leaves(tree_size), MAX_LEAVES_PER_RUN)
    parts: list[Part] = []
    while (
        count > 0 and not cycle.is_finished and cycle.count_verified_leaves(tree_size) < tree_size
    ):
        end = min(cycle.position + count, cycle.first if cycle.is_wrapped else tree_size)
        part = align_part((cycle.position, end), keys)
        count -= part[1] - cycle.position
        parts.append(part)
        cycle.position = part[1]
        if cycle.position >= tree_size and not cycle.is_wrapped:
            cycle.is_wrapped = True
            cycle.position = 0
    return parts


def _verify_parts(
    parts: Sequence[Part],
    keys: Sequence[LogKey],
    summary: VerificationSummary,
    *,
    now: datetime,
    unsealed_after: timedelta = UNSEALED_AFTER,
) -> None:
    logged: Counter[bool] = Counter()
    archived = read_archive_record(keys)
    for finding in verify_log(
        keys=keys,
        now=now,
        summary=summary,
        parts=sorted(parts),
        archived_restore_events=list_restore_events(keys),
        archived_size=archived.archived_size,
        detached_leaves=find_detached_leaves(archived),
        unsealed_after=unsealed_after,
    ):
        logged[finding.is_fault] += 1
        if logged[finding.is_fault] <= _MAX_LOGGED_FINDINGS:
            logger.error("Audit log: %s", finding.render_line())
