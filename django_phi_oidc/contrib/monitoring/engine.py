"""Evaluate the rules on new events of the log: exactly once per event and rule, with any number of
workers.

Events are read and evaluated without an open transaction. Then one transaction writes the cursor,
by compare-and-set, the memory of the rules and the alerts: of two workers at the same leaves, the
later one writes nothing.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from ...audit.events import Action, Event
from ...audit.log import sequencer
from ...audit.log.cursor import EventBatch, read_events
from .alerts import AlertCandidate, raise_alert
from .models import AnomalyMemory, SecurityAlert, WatchCursor
from .rules import Rule, RuleMemory

BATCH_SIZE = 20_000
"""Maximum number of leaves in one transaction."""
MAX_KEYS_PER_KIND = 20
"""Alerts of one kind in one batch. More keys become one alert without a key, to limit the number of
alerts.
"""
LAG_ALERT_INTERVAL = timedelta(hours=1)
_CURSOR_NAME = "rules"
_MAX_KEY_LENGTH = 256
_QUERY_CHUNK_SIZE = 500

RuleKey = tuple[str, str]
RuleMemories = dict[RuleKey, RuleMemory]


def evaluate_batch(rules: Sequence[Rule], *, now: datetime, limit: int = BATCH_SIZE) -> int | None:
    """Evaluate the next leaves, up to limit, and return how many they were; None if there are none.

    A killed worker has written nothing. A worker that is second at the same leaves writes nothing
    and returns None.
    Raises: AuditUnavailable.
    """
    cursor, _ = WatchCursor.objects.get_or_create(name=_CURSOR_NAME)
    batch = read_events(cursor.tree_size, bytes(cursor.leaf_hash), cursor.sealed_at, limit=limit)
    if batch is None:
        return None
    matches = list(_match_rules(rules, batch.events))
    # Load memories after the cursor: they change only together with it.
    rule_keys = set()
    for rule, key, _ in matches:
        if rule.memory_lifetime:
            rule_keys.add((rule.kind, key))
    memories, stored_expiries = _load_memories(rule_keys)
    candidates: dict[RuleKey, AlertCandidate] = {}
    last_times: dict[RuleKey, datetime] = {}
    for rule, key, event in matches:
        rule_key = (rule.kind, key)

        if rule.memory_lifetime:
            memory = memories[rule.kind, key]
        else:
            memory = {}

        if rule.evaluate(event, memory):
            _add_candidate(candidates, rule, key, event)
        if rule.memory_lifetime:
            last_time = last_times.get(rule_key, event.occurred_at)
            last_times[rule_key] = max(last_time, event.occurred_at)
    lifetimes = {rule.kind: rule.memory_lifetime for rule in rules}
    expiries = {}
    for rule_key, last_time in last_times.items():
        expires_at = last_time + lifetimes[rule_key[0]]
        # A late event does not make the memory of earlier ones expire.
        expiries[rule_key] = max(expires_at, stored_expiries.get(rule_key, expires_at))
    with transaction.atomic():
        unchanged = WatchCursor.objects.filter(name=_CURSOR_NAME, version=cursor.version)
        if not unchanged.update(
            version=F("version") + 1,
            tree_size=batch.tree_size,
            leaf_hash=batch.leaf_hash,
            sealed_at=batch.sealed_at,
        ):
            return None
        _save_memories(memories, expiries)
        if batch.events:
            # Expired by the time of the events, too: a wrong clock may have set it ahead of now.
            AnomalyMemory.objects.filter(
                expires_at__lt=min(now, batch.events[-1].occurred_at)
            ).delete()
        for candidate in (
            *_limit_keys_per_kind(candidates),
            *_log_integrity_candidates(batch, now=now),
        ):
            raise_alert(candidate, now=now)
    return max(batch.tree_size - cursor.tree_size, 0)


def check_sealing_lag(*, now: datetime) -> bool:
    """Return True if events wait too long to be sealed, and raise an alert once an hour: no rule
    sees such events.

    Raises: AuditUnavailable.
    """
    overdue_count = sequencer.count_overdue_events(now=now)
    open_alerts = SecurityAlert.objects.filter(kind="sealing_lag", acknowledged_at=None)
    if overdue_count and not open_alerts.filter(last_seen__gt=now - LAG_ALERT_INTERVAL).exists():
        with transaction.atomic():
            # The alert event of the sealer is in the audit log already, but not sealed either.
            candidate = AlertCandidate(
                kind="sealing_lag", first_seen=now, last_seen=now, has_alert_event=True
            )
            raise_alert(candidate, now=now)
    return overdue_count > 0


def _match_rules(
    rules: Iterable[Rule], events: Iterable[Event]
) -> Iterator[tuple[Rule, str, Event]]:
    by_action: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for action in rule.actions:
            by_action[action].append(rule)
    for event in events:
        if event.action == Action.ALERT_RAISED and event.resource.startswith("SecurityAlert/"):
            # Alerts raised by this module must not raise further alerts.
            continue
        for rule in by_action.get(event.action, ()):
            if (key := rule.key(event)) is not None:
                yield rule, key[:_MAX_KEY_LENGTH], event


def _add_candidate(
    candidates: dict[RuleKey, AlertCandidate], rule: Rule, key: str, event: Event
) -> None:
    at = event.occurred_at
    new = AlertCandidate(
        kind=rule.kind, key=key, severity=rule.severity, count=0, first_seen=at, last_seen=at
    )
    candidate = candidates.setdefault((rule.kind, key), new)
    candidate.has_alert_event = rule.has_alert_event
    candidate.count += 1
    candidate.event_id = event.id
    candidate.first_seen = min(candidate.first_seen, at)
    candidate.last_seen = max(candidate.last_seen, at)


def _limit_keys_per_kind(candidates: Mapping[RuleKey, AlertCandidate]) -> Iterator[AlertCandidate]:
    """Yield the candidates; those of a kind with more than MAX_KEYS_PER_KIND keys as one sum."""
    by_kind: dict[str, list[AlertCandidate]] = defaultdict(list)
    for candidate in candidates.values():
        by_kind[candidate.kind].append(candidate)
    for of_kind in by_kind.values():
        if len(of_kind) <= MAX_KEYS_PER_KIND:
            yield from of_kind
        else:
            count = sum(candidate.count for candidate in of_kind)
            first_seen = min(candidate.first_seen for candidate in of_kind)
            last_seen = max(candidate.last_seen for candidate in of_kind)
            yield replace(
                of_kind[-1], key="", count=count, first_seen=first_seen, last_seen=last_seen
            )


def _log_integrity_candidates(batch: EventBatch, *, now: datetime) -> Iterator[AlertCandidate]:
    if ids := batch.altered_event_ids:
        yield AlertCandidate(
            kind="trail_altered", count=len(ids), first_seen=now, last_seen=now, event_id=ids[0]
        )
    if batch.is_log_replaced:
        yield AlertCandidate(kind="log_replaced", first_seen=now, last_seen=now)


def _load_memories(
    rule_keys: Iterable[RuleKey],
) -> tuple[RuleMemories, Mapping[RuleKey, datetime]]:
    """Return the memory of each key, empty for a new one; and when the stored ones expire."""
    memories: RuleMemories = {rule_key: {} for rule_key in rule_keys}
    expiries = {}
    keys: dict[str, list[str]] = defaultdict(list)
    for kind, key in memories:
        keys[kind].append(key)
    for kind, of_kind in keys.items():
        for start in range(0, len(of_kind), _QUERY_CHUNK_SIZE):
            rows = AnomalyMemory.objects.filter(
                kind=kind, key__in=of_kind[start : start + _QUERY_CHUNK_SIZE]
            )
            for key, state, expires_at in rows.values_list("key", "state", "expires_at"):
                memories[kind, key] = json.loads(state)
                expiries[kind, key] = expires_at
    return memories, expiries


def _save_memories(memories: RuleMemories, expiries: Mapping[RuleKey, datetime]) -> None:
    rows = []
    for (kind, key), expires_at in sorted(expiries.items()):
        state = json.dumps(memories[kind, key], separators=(",", ":"))
        rows.append(AnomalyMemory(kind=kind, key=key, state=state, expires_at=expires_at))
    AnomalyMemory.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["kind", "key"],
        update_fields=["state", "expires_at"],
    )
