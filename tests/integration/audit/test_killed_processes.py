"""SIGKILL between any two statements of the audit log's writers: nothing is lost or duplicated.

Each kill hits a new process, which starts from the state that earlier kills left. Only some kills are followed by a
recovery. The tables are checked after each kill, and recomputed at the end.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from django.contrib.auth.models import Group
from django.db import connections

from django_phi_oidc.audit import outbox
from django_phi_oidc.audit.merkle.checkpoint import parse_checkpoint
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditOutbox, AuditWitness
from django_phi_oidc.contrib.siem.models import SinkCursor
from tests.integration.audit.killable_processes import END, Processes, ProcessResult
from tests.integration.audit.log_assertions import WIDTH, assert_log_is_coherent, assert_log_is_whole
from tests.integration.audit.process_activities import CHANGES, commit_change, deliver
from tests.support.audit_log import NOW, events, seal_now
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

KILLS = 10
"""Minimum per gap."""
ROUNDS = 8
"""Of attempts at gaps with fewer kills."""
RUNS_BY_THE_CLOCK = 15
"""Kills at random times: within statements, COMMIT, or the database server."""
AT_LEAST = 50
"""Minimum number of kills per activity."""
RECOVERED_EACH = 3
"""One of so many kills in a gap is followed by a recovery, the others by another kill."""
MORE_THAN_ONE_INSERT = (59, 70)
"""Numbers of events that SQLite inserts by two statements, in a transaction."""


class Case(Protocol):
    """An activity under kills."""

    def order(self, gap: str) -> dict[str, Any]:
        """Prepare a run, and return its arguments. gap: where it will be killed; empty: the run passes all gaps."""

    def start_afresh(self) -> None:
        """Prepare for a run that passes the gaps of a first run."""

    def check(self, order: dict[str, Any], ended: ProcessResult) -> None:
        """Check the state after a run, killed or not."""

    def recover(self) -> None:
        """Do what the next run, or Celery beat, would do."""

    def finish(self) -> None:
        """Check the whole state after a recovery."""


class Recording:
    """All events of a call are in the audit log, or none; reported ones are."""

    def __init__(self, directory: Path) -> None:
        self._expected: dict[str, tuple[int, ...]] = {}
        self._reported: set[str] = set()

    def order(self, gap: str) -> dict[str, Any]:
        return {
            "marker": f"run {len(self._expected)}",
            "counts": [random.randint(*MORE_THAN_ONE_INSERT), 1, random.randint(2, 9)],
        }

    def start_afresh(self) -> None:
        """All runs are the same."""

    def check(self, order: dict[str, Any], ended: ProcessResult) -> None:
        calls = [f"{order['marker']}/{call}" for call in range(3)]
        of_run = dict(AuditEvent.objects.filter(session__in=calls).values_list("id", "session"))
        found = Counter(of_run.values())
        done = sum(call in found for call in calls)
        assert found == dict(zip(calls[:done], order["counts"], strict=False)), (
            "an incomplete call, or calls out of order"
        )
        assert set(ended.reported) <= set(map(str, of_run))
        self._reported.update(ended.reported)
        self._expected[order["marker"]] = tuple(order["counts"][:done])

    def recover(self) -> None:
        seal_now()

    def finish(self) -> None:
        ids = {str(id_) for id_ in AuditEvent.objects.values_list("id", flat=True)}
        assert self._reported <= ids
        assert len(ids) == sum(map(sum, self._expected.values()))
        assert_log_is_whole()


class Changing:
    """The events of a change are in outbox or audit log exactly if it is committed, and finally in the audit log."""

    permits = 0
    """The permits of a change."""

    def __init__(self, directory: Path) -> None:
        self._reported: set[str] = set()
        self._permitted: set[str] = set()
        self._waiting = 0
        self._runs = 0

    def order(self, gap: str) -> dict[str, Any]:
        with outbox.defer_delivery():
            for _ in range(random.choice((0, 1, 3)) if gap else 3):
                self._waiting += 1
                self._reported |= {str(id_) for id_ in commit_change(f"waiting {self._waiting}")}
        self._runs += 1
        return {"marker": f"run {self._runs}"}

    def start_afresh(self) -> None:
        """All runs are the same."""

    def check(self, order: dict[str, Any], ended: ProcessResult) -> None:
        marker = order["marker"]
        trail = AuditEvent.objects.filter(session=marker)
        moved = set(trail.values_list("id", flat=True))
        waiting = set(AuditOutbox.objects.filter(event__contains=f'"session":"{marker}"').values_list("id", flat=True))
        committed = Group.objects.filter(name=marker).exists()
        assert len(moved | waiting) == (CHANGES + self.permits if committed else 0)
        reported = set(ended.reported)
        assert {str(id_) for id_ in moved | waiting} >= reported - {PERMITTED}
        if PERMITTED in reported:
            assert trail.filter(action="login.succeeded").count() == self.permits
        self._reported |= reported - {PERMITTED}

    def recover(self) -> None:
        outbox.flush(limit=100_000)

    def finish(self) -> None:
        assert not AuditOutbox.objects.exists()
        changed = AuditEvent.objects.filter(action="session.ended")
        assert Counter(changed.values_list("session", flat=True)) == dict.fromkeys(
            Group.objects.values_list("name", flat=True), CHANGES
        )
        assert self._reported <= {str(id_) for id_ in AuditEvent.objects.values_list("id", flat=True)}
        permitted = AuditEvent.objects.filter(action="login.succeeded")
        runs = Group.objects.filter(name__startswith="run").values_list("name", flat=True)
        assert Counter(permitted.values_list("session", flat=True)) == (dict.fromkeys(runs, 1) if self.permits else {})
        seal_now()
        assert_log_is_whole()


PERMITTED = "00000000-0000-0000-0000-000000000000"
"""Reported by `permit` when the permit may be given."""


class Permitting(Changing):
    """A change is committed with its permit, which is in the audit log when it permits something."""

    permits = 1


class Sealing:
    """Leaves, nodes and checkpoint exist together or not at all, and no size is signed with two roots."""

    def __init__(self, directory: Path) -> None:
        self._witness_file = directory / "witness"
        self._signed: dict[int, str] = {}
        events(WIDTH + 64)
        seal_now()

    def order(self, gap: str) -> dict[str, Any]:
        size = AuditEvent.objects.count()
        crossing = WIDTH - size % WIDTH + random.randint(0, 3)
        events(crossing if gap in {"", "INSERT auditnode"} else random.choice((1, 2, 5, 30)))
        return {}

    def start_afresh(self) -> None:
        """All runs are the same."""

    def check(self, order: dict[str, Any], ended: ProcessResult) -> None:
        assert_log_is_coherent()
        for row in AuditCheckpoint.objects.order_by("-tree_size")[:2]:
            assert self._signed.setdefault(row.tree_size, row.note) == row.note
        # The file is complete at any moment, and never newer than the committed state.
        outside = self._witness_file.read_text()
        assert self._signed[parse_checkpoint(outside).tree_size] == outside

    def recover(self) -> None:
        seal_now()

    def finish(self) -> None:
        assert_log_is_whole()
        assert dict(AuditCheckpoint.objects.filter(tree_size__in=self._signed).values_list("tree_size", "note")) == (
            self._signed
        )


class Delivering:
    """A line per leaf and checkpoint, in order. A kill may repeat the last batch and truncate a line."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._runs = self._killed = self._torn = 0
        self._file = directory / "sink 0"

    def order(self, gap: str) -> dict[str, Any]:
        events(random.choice((1, 2, 5)))
        seal_now()
        return self._run()

    def start_afresh(self) -> None:
        self.recover()
        self._check_file()
        # A new, small log, because delivering a large one to each new sink takes long.
        with connections["phi_audit"].cursor() as cursor:
            for table in ("auditevent", "auditleaf", "auditcheckpoint"):
                cursor.execute(f"DELETE FROM phi_oidc_audit_{table}")
        SinkCursor.objects.all().delete()
        AuditWitness.objects.all().delete()
        self._file = self._directory / f"sink {self._runs}"
        self._killed = 0

    def check(self, order: dict[str, Any], ended: ProcessResult) -> None:
        self._killed += ended.is_killed
        items = {item for item, _ in self._lines()}
        for cursor in SinkCursor.objects.all():
            assert {("leaf", index) for index in range(cursor.tree_size)} <= items, "the cursor is ahead of the file"
            assert not cursor.checkpoint_size or ("checkpoint", cursor.checkpoint_size) in items
        for witness in AuditWitness.objects.all():
            assert ("checkpoint", parse_checkpoint(witness.note).tree_size) in items

    def recover(self) -> None:
        while not SinkCursor.objects.filter(checkpoint_size=AuditEvent.objects.count()).exists():
            deliver(lambda ids: None, **self._run())

    def finish(self) -> None:
        self._check_file()
        assert self._torn, "no kill was in the middle of a line"
        assert_log_is_whole()

    def _check_file(self) -> None:
        """Requires: everything is delivered."""
        sizes = list(AuditCheckpoint.objects.values_list("tree_size", flat=True))
        expected = []
        for start, size in zip([0, *sizes], sizes, strict=False):
            expected += [*(("leaf", index) for index in range(start, size)), ("checkpoint", size)]
        lines = [line for line in self._lines() if line != TORN]
        in_file = dict(lines)
        assert list(in_file) == expected
        assert all(in_file[item] == members for item, members in lines), "two different lines of one item"
        ids = [in_file["leaf", index]["id"] for index in range(sizes[-1])]
        assert ids == [str(id_) for id_ in AuditLeaf.objects.values_list("event_id", flat=True)]
        # A repeated batch was sent, but its cursor was not saved.
        torn = sum(line == TORN for line in self._lines())
        assert len(lines) - len(expected) <= BATCH * self._killed
        assert torn <= self._killed
        self._torn += torn

    def _run(self) -> dict[str, Any]:
        # The lease of a killed process has expired by then.
        self._runs += 1
        return {"path": str(self._file), "now": (NOW + self._runs * timedelta(minutes=10)).isoformat(), "batch": BATCH}

    def _lines(self) -> Iterator[tuple[tuple[str, int], Any]]:
        for line in self._file.read_text().splitlines() if self._file.exists() else ():
            try:
                members = json.loads(line)
            except ValueError:
                yield TORN
            else:
                kind, name = ("leaf", "leaf_index") if "leaf_index" in members else ("checkpoint", "tree_size")
                yield (kind, members[name]), members


TORN: tuple[tuple[str, int], Any] = (("torn", 0), None)
"""A truncated line."""
BATCH = 100
CASES: dict[str, type[Case]] = {
    "record": Recording,
    "change": Changing,
    "permit": Permitting,
    "seal": Sealing,
    "deliver": Delivering,
}
"""By activity."""


@pytest.fixture
def processes(settings: Any, tmp_path: Path, activity: str) -> Iterator[Processes]:
    outside = {"AUDIT": {"witness_file": str(tmp_path / "witness")}} if activity == "seal" else {}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **outside)
    processes = Processes(outside)
    yield processes
    processes.close()


@pytest.mark.parametrize("activity", CASES)
def test_kill_in_each_gap_loses_and_duplicates_nothing(
    activity: str, processes: Processes, tmp_path: Path, record_property: Any
) -> None:
    case = CASES[activity](tmp_path)

    def run(gap: str = "", *, state_for: str = "", recovers: bool = True, **options: Any) -> ProcessResult:
        order = case.order(state_for)
        ended = processes.run({"activity": activity, **order, **options})[0]
        assert not gap or ended.is_killed == (ended.passed[-1] == gap)
        case.check(order, ended)
        if recovers:
            case.recover()
        return ended

    gaps, again = run(watched=True).passed, run(watched=True).passed
    assert gaps[-1] == END
    in_each = max(KILLS, -(-AT_LEAST // len(set(gaps))))
    killed: Counter[str] = Counter()
    for attempt in range(ROUNDS):
        left = [gap for gap in gaps for _ in range(in_each - killed[gap])]
        random.shuffle(left)
        for gap in left:
            if gap not in again:
                case.start_afresh()
            # In another state the run may pass other gaps, and is not killed. A later attempt makes up for it.
            recovers = killed[gap] % RECOVERED_EACH == 0
            killed[gap] += run(gap, state_for="" if attempt else gap, recovers=recovers, kill_at=gap).is_killed
    seconds = run().seconds
    by_the_clock = sum(run(kill_after=random.uniform(0, seconds)).is_killed for _ in range(RUNS_BY_THE_CLOCK))
    case.recover()
    case.finish()
    points = f"{activity}: {killed.total()} kills in {len(gaps)} gaps, {by_the_clock} by the clock; {dict(killed)}"
    record_property("kills", points)
    assert min(killed[gap] for gap in gaps) >= KILLS, points
    assert killed.total() + by_the_clock >= AT_LEAST, points
    print(points)
