"""SIGKILL in every gap between two statements of whatever writes the trail: nothing lost, nothing doubled.

Each kill is of a process of its own, at what the kills before it have left behind; only now and then somebody cleans up
in between. After each, what is in the tables is looked at; in the end, all of it is recomputed.
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
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditOutbox, AuditWitness
from django_phi_oidc.merkle.checkpoint import parse_checkpoint
from django_phi_oidc.siem.models import SinkCursor
from tests.integration.audit.killable_processes import END, Ended, Processes
from tests.integration.audit.log_assertions import WIDTH, assert_log_is_coherent, assert_log_is_whole
from tests.integration.audit.process_activities import CHANGES, commit_change, deliver
from tests.support.audit_log import NOW, events, seal_now

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

KILLS = 10
"""In each gap, at least."""
ROUNDS = 8
"""Of attempts at those gaps that have had fewer."""
RUNS_BY_THE_CLOCK = 15
"""Killed at any moment: inside of statements, of COMMIT, and of what the database does by itself."""
AT_LEAST = 50
"""Kills of each activity."""
RECOVERED_EACH = 3
"""Of the kills in a gap, so many come to one that is followed by what cleans up; the others by another kill."""
MORE_THAN_ONE_INSERT = (59, 70)
"""So many events SQLite takes by two statements, in a transaction."""


class Case(Protocol):
    """An activity of `activities`, under kills."""

    def order(self, gap: str) -> dict[str, Any]:
        """Prepare a run, and return what the activity takes. gap: where it will be killed; empty: it comes past all."""

    def start_afresh(self) -> None:
        """Prepare for a run that is to do what only the first one does."""

    def judge(self, order: dict[str, Any], ended: Ended) -> None:
        """Look at what a run has left behind, killed or not."""

    def recover(self) -> None:
        """Do what the next run, or beat, would do."""

    def finish(self) -> None:
        """Look at all of it, after a recovery."""


class Recording:
    """All events of a call are in the trail, or none; those that were told of are."""

    def __init__(self, directory: Path) -> None:
        self._expected: dict[str, tuple[int, ...]] = {}
        self._told: set[str] = set()

    def order(self, gap: str) -> dict[str, Any]:
        return {
            "marker": f"run {len(self._expected)}",
            "counts": [random.randint(*MORE_THAN_ONE_INSERT), 1, random.randint(2, 9)],
        }

    def start_afresh(self) -> None:
        """Each run is like the others."""

    def judge(self, order: dict[str, Any], ended: Ended) -> None:
        calls = [f"{order['marker']}/{call}" for call in range(3)]
        of_run = dict(AuditEvent.objects.filter(session__in=calls).values_list("id", "session"))
        found = Counter(of_run.values())
        done = sum(call in found for call in calls)
        assert found == dict(zip(calls[:done], order["counts"], strict=False)), "a part of a call, or one out of turn"
        assert set(ended.told) <= set(map(str, of_run))
        self._told.update(ended.told)
        self._expected[order["marker"]] = tuple(order["counts"][:done])

    def recover(self) -> None:
        seal_now()

    def finish(self) -> None:
        ids = {str(id_) for id_ in AuditEvent.objects.values_list("id", flat=True)}
        assert self._told <= ids
        assert len(ids) == sum(map(sum, self._expected.values()))
        assert_log_is_whole()


class Changing:
    """The events of a change are in the outbox or the trail if, and only if, it is committed; in the end, the trail."""

    def __init__(self, directory: Path) -> None:
        self._told: set[str] = set()
        self._permitted: set[str] = set()
        self._waiting = 0
        self._runs = 0

    def order(self, gap: str) -> dict[str, Any]:
        with outbox.defer_delivery():
            for _ in range(random.choice((0, 1, 3)) if gap else 3):
                self._waiting += 1
                self._told |= {str(id_) for id_ in commit_change(f"waiting {self._waiting}")}
        self._runs += 1
        return {"marker": f"run {self._runs}"}

    def start_afresh(self) -> None:
        """Each run is like the others."""

    def judge(self, order: dict[str, Any], ended: Ended) -> None:
        marker = order["marker"]
        trail = AuditEvent.objects.filter(session=marker)
        moved = set(trail.filter(action="session.ended").values_list("id", flat=True))
        waiting = set(AuditOutbox.objects.filter(event__contains=f'"session":"{marker}"').values_list("id", flat=True))
        committed = Group.objects.filter(name=marker).exists()
        assert len(moved | waiting) == (CHANGES if committed else 0)
        told = set(ended.told)
        assert {str(id_) for id_ in moved | waiting} >= told - {PERMITTED}
        permits = trail.filter(action="login.succeeded").count()
        assert permits in ({1} if PERMITTED in told else {0, 1})
        assert committed or not permits, "a permit ahead of what it stands for"
        self._told |= told - {PERMITTED}

    def recover(self) -> None:
        outbox.flush(limit=100_000)

    def finish(self) -> None:
        assert not AuditOutbox.objects.exists()
        changed = AuditEvent.objects.filter(action="session.ended")
        assert Counter(changed.values_list("session", flat=True)) == dict.fromkeys(
            Group.objects.values_list("name", flat=True), CHANGES
        )
        assert self._told <= {str(id_) for id_ in changed.values_list("id", flat=True)}
        seal_now()
        assert_log_is_whole()


PERMITTED = "00000000-0000-0000-0000-000000000000"
"""What `permit` tells of when its answer may be given."""


class Sealing:
    """Leaves, nodes and the checkpoint are there together, or none; no size is ever signed with two roots."""

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
        """Each run is like the others."""

    def judge(self, order: dict[str, Any], ended: Ended) -> None:
        assert_log_is_coherent()
        for row in AuditCheckpoint.objects.order_by("-tree_size")[:2]:
            assert self._signed.setdefault(row.tree_size, row.note) == row.note
        # The file is whole at any moment, and never ahead of what is committed.
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
    """A line for each leaf and each checkpoint, in order; after a kill the last batch again, and a line cut off."""

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
        self._look_at_file()
        # Another log, and a small one: to deliver all of a large one to each new sink would take long.
        with connections["phi_audit"].cursor() as cursor:
            for table in ("auditevent", "auditleaf", "auditcheckpoint"):
                cursor.execute(f"DELETE FROM django_phi_oidc_{table}")
        SinkCursor.objects.all().delete()
        AuditWitness.objects.all().delete()
        self._file = self._directory / f"sink {self._runs}"
        self._killed = 0

    def judge(self, order: dict[str, Any], ended: Ended) -> None:
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
        self._look_at_file()
        assert self._torn, "no kill was in the middle of a line"
        assert_log_is_whole()

    def _look_at_file(self) -> None:
        """Requires: all is delivered."""
        sizes = list(AuditCheckpoint.objects.values_list("tree_size", flat=True))
        expected = []
        for start, size in zip([0, *sizes], sizes, strict=False):
            expected += [*(("leaf", index) for index in range(start, size)), ("checkpoint", size)]
        lines = [line for line in self._lines() if line != TORN]
        in_file = dict(lines)
        assert list(in_file) == expected
        assert all(in_file[item] == members for item, members in lines), "one item in two wordings"
        ids = [in_file["leaf", index]["id"] for index in range(sizes[-1])]
        assert ids == [str(id_) for id_ in AuditLeaf.objects.values_list("event_id", flat=True)]
        # What comes again is a batch that was sent and not written down.
        torn = sum(line == TORN for line in self._lines())
        assert len(lines) - len(expected) <= BATCH * self._killed
        assert torn <= self._killed
        self._torn += torn

    def _run(self) -> dict[str, Any]:
        # The lease of one who was killed has run out by then.
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
"""A line that was cut off."""
BATCH = 100
CASES: dict[str, type[Case]] = {
    "record": Recording,
    "change": Changing,
    "permit": Changing,
    "seal": Sealing,
    "deliver": Delivering,
}
"""By the activity. One more is one more row."""


@pytest.fixture
def processes(settings: Any, tmp_path: Path, activity: str) -> Iterator[Processes]:
    outside = {"AUDIT_WITNESS_FILE": str(tmp_path / "witness")} if activity == "seal" else {}
    settings.PHI_OIDC = {**settings.PHI_OIDC, **outside}
    processes = Processes(outside)
    yield processes
    processes.close()


@pytest.mark.parametrize("activity", CASES)
def test_kill_in_each_gap_loses_and_duplicates_nothing(
    activity: str, processes: Processes, tmp_path: Path, record_property: Any
) -> None:
    case = CASES[activity](tmp_path)

    def run(gap: str = "", *, state_for: str = "", recovers: bool = True, **given: Any) -> Ended:
        order = case.order(state_for)
        ended = processes.run({"activity": activity, **order, **given})[0]
        assert not gap or ended.is_killed == (ended.passed[-1] == gap)
        case.judge(order, ended)
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
            # In another state it may come past other gaps: that run is without a kill, and is made up for later.
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
