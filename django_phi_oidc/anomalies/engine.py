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

from .._internal.sql import insert
from ..audit.events import Action, Event
from ..audit.log import sequencer
from .alerts import AlertCandidate, raise_alert
from .cursor import EventBatch, find_next_batch
from .models import AnomalyMemory, SecurityAlert, WatchCursor
from .rules import Rule, RuleMemory, Severity

BATCH_SIZE = 20_000
"""Leaves in one transaction, at most."""
MAX_KEYS_PER_KIND = 20
"""Alerts of one kind by one batch. More keys are one alert without a key, or a flood would be one of alerts."""
LAG_ALERT_INTERVAL = timedelta(hours=1)
_CURSOR_NAME = "rules"
_MAX_KEY_LENGTH = 256
_QUERY_CHUNK_SIZE = 500

RuleKey = tuple[str, str]
RuleMemories = dict[RuleKey, RuleMemory]


def evaluate_batch(rules: Sequence[Rule], *, now: datetime, limit: int = BATCH_SIZE) -> int | None:
    """Judge up to limit leaves that come next, and return how many they were; None where none is left.

    Whoever is killed has judged nothing, and whoever comes second at the same leaves neither: it gets None, too.
    Raises: AuditUnavailable.
    """
    cursor, _ = WatchCursor.objects.get_or_create(name=_CURSOR_NAME)
    batch = find_next_batch(cursor, limit=limit)
    if batch is None:
        return None
    concerned = list(_match_rules(rules, batch.events))
    # After the cursor was read: what is remembered changes with it alone.
    memories = _load_memories({(rule.kind, key) for rule, key, _ in concerned if rule.memory_lifetime})
    seen: dict[RuleKey, AlertCandidate] = {}
    expiries: dict[RuleKey, datetime] = {}
    for rule, key, event in concerned:
        at, memory = (rule.kind, key), memories[rule.kind, key] if rule.memory_lifetime else {}
        if rule.evaluate(event, memory):
            _add_candidate(seen, rule, key, event)
        if rule.memory_lifetime:
            expiries[at] = max(expiries.get(at, event.occurred_at), event.occurred_at)
    keeps = {rule.kind: rule.memory_lifetime for rule in rules}
    with transaction.atomic():
        moved = WatchCursor.objects.filter(name=_CURSOR_NAME, version=cursor.version).update(
            version=F("version") + 1,
            tree_size=batch.tree_size,
            leaf_hash=batch.leaf_hash,
            sealed_at=batch.sealed_at,
        )
        if not moved:
            return None
        _save_memories(memories, {at: then + keeps[at[0]] for at, then in expiries.items()})
        _delete_expired_memories(batch.events, now=now)
        for sighting in (*_limit_keys_per_kind(seen), *_log_integrity_candidates(batch, now=now)):
            raise_alert(sighting, now=now)
    return max(batch.tree_size - cursor.tree_size, 0)


def check_sealing_lag(*, now: datetime) -> bool:
    """Say whether events wait too long to be sealed, and raise an alert of it once an hour: nobody judges those.

    Raises: AuditUnavailable.
    """
    late = sequencer.count_overdue_events(now=now)
    told = SecurityAlert.objects.filter(
        kind="sealing_lag", acknowledged_at=None, last_seen__gt=now - LAG_ALERT_INTERVAL
    )
    if late and not told.exists():
        with transaction.atomic():
            # The sealer's own alert is in the trail, and not sealed either.
            raise_alert(_create_critical_candidate("sealing_lag", now=now), now=now)
    return late > 0


def _match_rules(rules: Iterable[Rule], events: Iterable[Event]) -> Iterator[tuple[Rule, str, Event]]:
    by_action: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for action in rule.actions:
            by_action[action].append(rule)
    for event in events:
        if event.action == Action.ALERT_RAISED and event.resource.startswith("SecurityAlert/"):
            # What is told of an alert raises none.
            continue
        for rule in by_action.get(event.action, ()):
            key = rule.key(event)
            if key is not None:
                yield rule, key[:_MAX_KEY_LENGTH], event


def _add_candidate(candidates: dict[RuleKey, AlertCandidate], rule: Rule, key: str, event: Event) -> None:
    at = event.occurred_at
    sighting = candidates.get((rule.kind, key))
    if sighting is None:
        sighting = candidates[rule.kind, key] = AlertCandidate(
            kind=rule.kind,
            key=key,
            severity=rule.severity,
            count=0,
            first_seen=at,
            last_seen=at,
            has_alert_event=rule.has_alert_event,
        )
    sighting.count += 1
    sighting.event_id = event.id
    sighting.first_seen, sighting.last_seen = min(sighting.first_seen, at), max(sighting.last_seen, at)


def _limit_keys_per_kind(candidates: Mapping[RuleKey, AlertCandidate]) -> Iterator[AlertCandidate]:
    """Yield what was seen, but of a kind with more than MOST_KEYS keys the sum of all."""
    by_kind: dict[str, list[AlertCandidate]] = defaultdict(list)
    for sighting in candidates.values():
        by_kind[sighting.kind].append(sighting)
    for of_kind in by_kind.values():
        if len(of_kind) <= MAX_KEYS_PER_KIND:
            yield from of_kind
            continue
        yield replace(
            of_kind[-1],
            key="",
            count=sum(each.count for each in of_kind),
            first_seen=min(each.first_seen for each in of_kind),
            last_seen=max(each.last_seen for each in of_kind),
        )


def _log_integrity_candidates(batch: EventBatch, *, now: datetime) -> Iterator[AlertCandidate]:
    if batch.altered_event_ids:
        sighting = _create_critical_candidate(
            "trail_altered", now=now, count=len(batch.altered_event_ids), has_alert_event=False
        )
        sighting.event_id = batch.altered_event_ids[0]
        yield sighting
    if batch.is_log_replaced:
        yield _create_critical_candidate("log_replaced", now=now, has_alert_event=False)


def _create_critical_candidate(
    kind: str, *, now: datetime, count: int = 1, has_alert_event: bool = True
) -> AlertCandidate:
    return AlertCandidate(
        kind=kind,
        key="",
        severity=Severity.CRITICAL,
        count=count,
        first_seen=now,
        last_seen=now,
        has_alert_event=has_alert_event,
    )


def _load_memories(rule_keys: Iterable[RuleKey]) -> RuleMemories:
    """Return what is remembered of each; empty where nothing is."""
    keys: dict[str, list[str]] = defaultdict(list)
    for kind, key in rule_keys:
        keys[kind].append(key)
    memories: RuleMemories = {(kind, key): {} for kind, of_kind in keys.items() for key in of_kind}
    for kind, of_kind in keys.items():
        for start in range(0, len(of_kind), _QUERY_CHUNK_SIZE):
            rows = AnomalyMemory.objects.filter(kind=kind, key__in=of_kind[start : start + _QUERY_CHUNK_SIZE])
            for key, state in rows.values_list("key", "state"):
                memories[kind, key] = json.loads(state)
    return memories


def _save_memories(memories: RuleMemories, expiries: Mapping[RuleKey, datetime]) -> None:
    rows = [
        AnomalyMemory(kind=kind, key=key, state=json.dumps(memories[kind, key], separators=(",", ":")), expires_at=then)
        for (kind, key), then in sorted(expiries.items())
    ]
    if rows:
        insert(rows, using=DEFAULT_DB_ALIAS, unique_columns=("kind", "key"), update_columns=("state", "expires_at"))


def _delete_expired_memories(events: Sequence[Event], *, now: datetime) -> None:
    """Delete what is over, by the events' time, which is long ago while a backlog is read, and may be ahead of now."""
    if events:
        AnomalyMemory.objects.filter(expires_at__lt=min(now, events[-1].occurred_at)).delete()
