"""Evaluate the rules on new events of the log: exactly once per event and rule, with any number of
workers.

Events are read and evaluated without an open transaction. Then one transaction writes the cursor,
by compare-and-set, the memory of the rules, the alerts and the events that a rule failed on: of two
workers at the same leaves, the later one writes nothing.
"""

import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

from django.db import transaction
from django.db.models import F

from ...audit.events import Action, Event
from ...audit.log import sequencer
from ...audit.log.cursor import EventBatch, RecentEvent, read_events
from ...audit.outbox import enqueue_many
from ...audit.set_aside_events import READER_RESOURCE, set_aside_events
from .alerts import AlertCandidate, raise_alert
from .models import AnomalyMemory, SecurityAlert, WatchCursor
from .rules import Rule, RuleMemory

BATCH_SIZE = 20_000
"""Maximum number of leaves in one transaction."""
MAX_KEYS_PER_KIND = 20
"""Alerts of one kind in one batch. More keys become one alert without a key, to limit the number of
alerts.
"""
MAX_SET_ASIDE_PER_KIND = 100
"""Events of one batch that are set aside for one rule. The alert counts all."""
READER_KIND = "rule"
"""The reader of a rule is `rule:KIND`."""
LAG_ALERT_INTERVAL = timedelta(hours=1)
_CURSOR_NAME = "rules"
_MAX_KEY_LENGTH = 256
_QUERY_CHUNK_SIZE = 500

logger = logging.getLogger("phi_oidc.alerts")

RuleKey = tuple[str, str]
RuleMemories = dict[RuleKey, RuleMemory]


@dataclass(slots=True)
class _Evaluation:
    """What the rules returned for some events, before it is written."""

    memories: RuleMemories = field(default_factory=dict)
    stored_expiries: dict[RuleKey, datetime] = field(default_factory=dict)
    candidates: dict[RuleKey, AlertCandidate] = field(default_factory=dict)
    last_events: dict[RuleKey, Event] = field(default_factory=dict)
    """The latest event of each key that has a memory."""
    errors: dict[str, dict[uuid.UUID, str]] = field(default_factory=lambda: defaultdict(dict))
    """The events that a rule failed on, by its kind, with the name of the error."""
    silent_ids: set[uuid.UUID] = field(default_factory=set)
    """Those of them that are alerts about such failures. A rule that fails on these, too, would
    raise alerts without end.
    """

    def add_error(self, rule_kind: str, event: Event, error: Exception) -> None:
        self.errors[rule_kind][event.id] = type(error).__name__
        if event.action == Action.ALERT_RAISED and event.resource.startswith(READER_RESOURCE):
            self.silent_ids.add(event.id)


def evaluate_batch(rules: Sequence[Rule], *, now: datetime, limit: int = BATCH_SIZE) -> int | None:
    """Evaluate the next leaves, up to limit, and return how many they were; None if there are none.

    An event that a rule fails on is set aside for this rule; the other rules see it. A killed
    worker has written nothing. A worker that is second at the same leaves writes nothing and
    returns None.
    Raises: AuditUnavailable.
    """
    cursor, _ = WatchCursor.objects.get_or_create(name=_CURSOR_NAME)
    batch = read_events(cursor.tree_size, bytes(cursor.leaf_hash), cursor.sealed_at, limit=limit)
    if batch is None:
        return None
    events = [limit_event_time(recent_event) for recent_event in batch.events]
    # Memories are loaded after the cursor: they change only together with it.
    evaluation = _evaluate_events(rules, events)
    with transaction.atomic():
        unchanged = WatchCursor.objects.filter(name=_CURSOR_NAME, version=cursor.version)
        if not unchanged.update(
            version=F("version") + 1,
            tree_size=batch.tree_size,
            leaf_hash=batch.leaf_hash,
            sealed_at=batch.sealed_at,
        ):
            return None
        _save_evaluation(rules, evaluation, now=now)
        if events:
            # Expired by the time of the events, too: a wrong clock may have set it ahead of now.
            AnomalyMemory.objects.filter(expires_at__lt=min(now, events[-1].occurred_at)).delete()
        for candidate in _log_integrity_candidates(batch, now=now):
            raise_alert(candidate, now=now)
    return max(batch.tree_size - cursor.tree_size, 0)


def evaluate_event(rule: Rule, event: Event, *, now: datetime) -> None:
    """Evaluate one event that was set aside.

    Raises: what the rule raises, and then nothing is written.
    """
    with transaction.atomic():
        # A batch that is being evaluated has an old memory of the rule, and is evaluated again.
        cursor = WatchCursor.objects.select_for_update().get(name=_CURSOR_NAME)
        cursor.version += 1
        cursor.save(update_fields=["version"])
        if not _is_seen_by_rules(event) or event.action not in rule.actions:
            return
        key = _get_key(rule, event)
        if key is None:
            return
        evaluation = _Evaluation()
        if rule.memory_lifetime:
            _load_memories([(rule.kind, key)], evaluation)
        _evaluate(rule, key, event, evaluation)
        _save_evaluation([rule], evaluation, now=now)
        if evaluation.errors:
            raise TypeError(f"The memory of the rule {rule.kind} cannot be stored as JSON.")


def limit_event_time(recent_event: RecentEvent) -> Event:
    """Return the event with a time between the checkpoints before and after it was sealed.

    Rules compare the times of events that many processes wrote, each with its own clock.
    """
    event = recent_event.event
    at = event.occurred_at
    if recent_event.sealed_after is not None:
        at = max(at, recent_event.sealed_after)
    at = min(at, recent_event.sealed_at)
    if at == event.occurred_at:
        return event
    return event._replace(occurred_at=at)


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


def _evaluate_events(rules: Sequence[Rule], events: Sequence[Event]) -> _Evaluation:
    by_action: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for action in rule.actions:
            by_action[action].append(rule)
    evaluation = _Evaluation()
    matches = []
    rule_keys = set()
    for event in events:
        if not _is_seen_by_rules(event):
            continue
        for rule in by_action.get(event.action, ()):
            try:
                key = _get_key(rule, event)
            except Exception as error:  # noqa: BLE001 -- any error of a rule, as of a project
                evaluation.add_error(rule.kind, event, error)
                continue
            if key is not None:
                matches.append((rule, key, event))
                if rule.memory_lifetime:
                    rule_keys.add((rule.kind, key))
    _load_memories(rule_keys, evaluation)
    for rule, key, event in matches:
        try:
            _evaluate(rule, key, event, evaluation)
        except Exception as error:  # noqa: BLE001 -- any error of a rule, as of a project
            evaluation.add_error(rule.kind, event, error)
    return evaluation


def _is_seen_by_rules(event: Event) -> bool:
    """Return False for alerts that this module raised: they must not raise further alerts."""
    return event.action != Action.ALERT_RAISED or not event.resource.startswith("SecurityAlert/")


def _get_key(rule: Rule, event: Event) -> str | None:
    """Return the key that the event counts for, as the database stores it. Raises: what the rule
    raises; TypeError for a key that is no text.
    """
    key = rule.key(event)
    if key is None:
        return None
    if not isinstance(key, str):
        raise TypeError(f"The key of the rule {rule.kind} is no text.")
    storable = key.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return storable[:_MAX_KEY_LENGTH]


def _evaluate(rule: Rule, key: str, event: Event, evaluation: _Evaluation) -> None:
    """Evaluate one event that has a key. Raises: what the rule raises."""
    rule_key = (rule.kind, key)
    if rule.memory_lifetime:
        try:
            is_raised = rule.evaluate(event, evaluation.memories[rule_key])
        except Exception:  # noqa: BLE001 -- any error of a rule, as of a project
            # If the event is at fault, this fails again, and the memory is kept. If the memory is
            # at fault, the rule begins a new one.
            new_memory: RuleMemory = {}
            is_raised = rule.evaluate(event, new_memory)
            evaluation.memories[rule_key] = new_memory
        last_event = evaluation.last_events.get(rule_key, event)
        if event.occurred_at >= last_event.occurred_at:
            evaluation.last_events[rule_key] = event
    else:
        is_raised = rule.evaluate(event, {})
    if is_raised:
        _add_candidate(evaluation.candidates, rule, key, event)


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


def _load_memories(rule_keys: Iterable[RuleKey], evaluation: _Evaluation) -> None:
    """Add the memory of each key, empty for a new one; and when the stored ones expire."""
    keys: dict[str, list[str]] = defaultdict(list)
    for kind, key in rule_keys:
        evaluation.memories[kind, key] = {}
        keys[kind].append(key)
    for kind, of_kind in keys.items():
        for start in range(0, len(of_kind), _QUERY_CHUNK_SIZE):
            rows = AnomalyMemory.objects.filter(
                kind=kind, key__in=of_kind[start : start + _QUERY_CHUNK_SIZE]
            )
            for key, state, expires_at in rows.values_list("key", "state", "expires_at"):
                evaluation.memories[kind, key] = _parse_memory(kind, state)
                evaluation.stored_expiries[kind, key] = expires_at


def _parse_memory(kind: str, state: str) -> RuleMemory:
    """Return the stored memory of a rule; an empty one if it is no JSON object."""
    try:
        memory = json.loads(state)
    except (ValueError, RecursionError):
        memory = None
    if isinstance(memory, dict):
        return memory
    logger.error("A stored memory of the rule %s is no JSON object. The rule begins anew.", kind)
    return {}


def _save_evaluation(rules: Iterable[Rule], evaluation: _Evaluation, *, now: datetime) -> None:
    """Write memories and alerts, and set the events aside that a rule failed on.

    Requires: an open transaction.
    """
    lifetimes = {rule.kind: rule.memory_lifetime for rule in rules}
    rows = []
    for rule_key, event in sorted(evaluation.last_events.items()):
        kind, key = rule_key
        try:
            state = json.dumps(evaluation.memories[rule_key], separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            # The stored memory stays as it was.
            evaluation.add_error(kind, event, error)
            continue
        expires_at = event.occurred_at + lifetimes[kind]
        stored_expiry = evaluation.stored_expiries.get(rule_key, expires_at)
        # An event with an earlier time does not make the memory of later ones expire.
        expires_at = max(expires_at, stored_expiry)
        rows.append(AnomalyMemory(kind=kind, key=key, state=state, expires_at=expires_at))
    AnomalyMemory.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["kind", "key"],
        update_fields=["state", "expires_at"],
    )
    for kind, errors in evaluation.errors.items():
        first_errors = dict(islice(errors.items(), MAX_SET_ASIDE_PER_KIND))
        alerts = set_aside_events(f"{READER_KIND}:{kind}", first_errors, now=now, count=len(errors))
        if not evaluation.silent_ids.issuperset(errors):
            enqueue_many(alerts)
    for candidate in _limit_keys_per_kind(evaluation.candidates):
        raise_alert(candidate, now=now)
