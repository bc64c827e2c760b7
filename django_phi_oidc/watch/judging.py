"""The rules over what is new in the trail: exactly once per event and rule, by however many workers, killed or not.

What is new is read and judged with no transaction open. Then the cursor, what the rules remember and the alerts are
written in one, by a compare-and-set of the cursor: of two workers at the same leaves, the later one writes nothing.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.models import F

from ..audit import sealing
from ..audit.events import Action, Event
from ..statements import insert
from .alerting import Sighting, raise_alert
from .gathering import Batch, gather
from .models import AnomalyMemory, SecurityAlert, WatchCursor
from .rules import Memory, Rule, Severity

BATCH = 20_000
"""Leaves in one transaction, at most."""
MOST_KEYS = 20
"""Alerts of one kind by one batch. More keys are one alert without a key, or a flood would be one of alerts."""
LAG_AGAIN = timedelta(hours=1)
_NAME = "rules"
_MAX_KEY = 256
_PART = 500

Key = tuple[str, str]
Memories = dict[Key, Memory]


def judge_next(rules: Sequence[Rule], *, now: datetime, limit: int = BATCH) -> int | None:
    """Judge up to limit leaves that come next, and return how many they were; None where none is left.

    Whoever is killed has judged nothing, and whoever comes second at the same leaves neither: it gets None, too.
    Raises: AuditUnavailable.
    """
    cursor, _ = WatchCursor.objects.get_or_create(name=_NAME)
    batch = gather(cursor, limit=limit)
    if batch is None:
        return None
    concerned = list(_concerned(rules, batch.events))
    # After the cursor was read: what is remembered changes with it alone.
    memories = _load({(rule.kind, key) for rule, key, _ in concerned if rule.keep})
    seen: dict[Key, Sighting] = {}
    expiries: dict[Key, datetime] = {}
    for rule, key, event in concerned:
        at, memory = (rule.kind, key), memories[rule.kind, key] if rule.keep else {}
        if rule.judge(event, memory):
            _note(seen, rule, key, event)
        if rule.keep:
            expiries[at] = max(expiries.get(at, event.occurred_at), event.occurred_at)
    keeps = {rule.kind: rule.keep for rule in rules}
    with transaction.atomic():
        moved = WatchCursor.objects.filter(name=_NAME, version=cursor.version).update(
            version=F("version") + 1,
            tree_size=batch.tree_size,
            leaf_hash=batch.leaf_hash,
            sealed_at=batch.sealed_at,
        )
        if not moved:
            return None
        _save(memories, {at: then + keeps[at[0]] for at, then in expiries.items()})
        _forget(batch.events, now=now)
        for sighting in (*_folded(seen), *_of_the_log(batch, now=now)):
            raise_alert(sighting, now=now)
    return max(batch.tree_size - cursor.tree_size, 0)


def watch_sealing(*, now: datetime) -> bool:
    """Say whether events wait too long to be sealed, and raise an alert of it once an hour: nobody judges those.

    Raises: AuditUnavailable.
    """
    late = sealing.late(now=now)
    told = SecurityAlert.objects.filter(kind="sealing_lag", acknowledged_at=None, last_seen__gt=now - LAG_AGAIN)
    if late and not told.exists():
        with transaction.atomic():
            # The sealer's own alert is in the trail, and not sealed either.
            raise_alert(_sighting("sealing_lag", now=now), now=now)
    return late > 0


def _concerned(rules: Iterable[Rule], events: Iterable[Event]) -> Iterator[tuple[Rule, str, Event]]:
    by_action: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for action in rule.actions:
            by_action[action].append(rule)
    for event in events:
        if event.action == Action.ALERT_RAISED and event.resource.startswith("SecurityAlert/"):
            # What is told of an alert raises none.
            continue
        for rule in by_action.get(event.action, ()):
            key = rule.by(event)
            if key is not None:
                yield rule, key[:_MAX_KEY], event


def _note(seen: dict[Key, Sighting], rule: Rule, key: str, event: Event) -> None:
    at = event.occurred_at
    sighting = seen.get((rule.kind, key))
    if sighting is None:
        sighting = seen[rule.kind, key] = Sighting(
            kind=rule.kind,
            key=key,
            severity=rule.severity,
            count=0,
            first_seen=at,
            last_seen=at,
            is_told=rule.is_told,
        )
    sighting.count += 1
    sighting.event = event.id
    sighting.first_seen, sighting.last_seen = min(sighting.first_seen, at), max(sighting.last_seen, at)


def _folded(seen: Mapping[Key, Sighting]) -> Iterator[Sighting]:
    """Yield what was seen, but of a kind with more than MOST_KEYS keys the sum of all."""
    by_kind: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in seen.values():
        by_kind[sighting.kind].append(sighting)
    for of_kind in by_kind.values():
        if len(of_kind) <= MOST_KEYS:
            yield from of_kind
            continue
        yield replace(
            of_kind[-1],
            key="",
            count=sum(each.count for each in of_kind),
            first_seen=min(each.first_seen for each in of_kind),
            last_seen=max(each.last_seen for each in of_kind),
        )


def _of_the_log(batch: Batch, *, now: datetime) -> Iterator[Sighting]:
    if batch.altered:
        sighting = _sighting("trail_altered", now=now, count=len(batch.altered), is_told=False)
        sighting.event = batch.altered[0]
        yield sighting
    if batch.is_another_log:
        yield _sighting("log_replaced", now=now, is_told=False)


def _sighting(kind: str, *, now: datetime, count: int = 1, is_told: bool = True) -> Sighting:
    return Sighting(
        kind=kind,
        key="",
        severity=Severity.CRITICAL,
        count=count,
        first_seen=now,
        last_seen=now,
        is_told=is_told,
    )


def _load(wanted: Iterable[Key]) -> Memories:
    """Return what is remembered of each; empty where nothing is."""
    keys: dict[str, list[str]] = defaultdict(list)
    for kind, key in wanted:
        keys[kind].append(key)
    memories: Memories = {(kind, key): {} for kind, of_kind in keys.items() for key in of_kind}
    for kind, of_kind in keys.items():
        for start in range(0, len(of_kind), _PART):
            rows = AnomalyMemory.objects.filter(kind=kind, key__in=of_kind[start : start + _PART])
            for key, state in rows.values_list("key", "state"):
                memories[kind, key] = json.loads(state)
    return memories


def _save(memories: Memories, expiries: Mapping[Key, datetime]) -> None:
    rows = [
        AnomalyMemory(kind=kind, key=key, state=json.dumps(memories[kind, key], separators=(",", ":")), expires_at=then)
        for (kind, key), then in sorted(expiries.items())
    ]
    if rows:
        insert(rows, using=DEFAULT_DB_ALIAS, unique=("kind", "key"), replaced=("state", "expires_at"))


def _forget(events: Sequence[Event], *, now: datetime) -> None:
    """Delete what is over, by the events' time, which is long ago while a backlog is read, and may be ahead of now."""
    if events:
        AnomalyMemory.objects.filter(expires_at__lt=min(now, events[-1].occurred_at)).delete()
