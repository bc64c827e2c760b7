"""What is anomalous in the trail: small rules, each over one event and what is remembered of its key. No Django.

A rule sees each event once, in the order of the log. What it must know of those before is in `memory`: JSON, bounded.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from statistics import median
from typing import Any

from ..audit.actions import DISCLOSURE_ACTIONS
from ..audit.events import Action, Event, get_registered_disclosure_actions

RuleMemory = dict[str, Any]


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Raises an alert by each event of its actions for which `by` gives a key: one alert for each kind and key."""

    kind: str
    """A code: the rule's name in alerts, mutes and the trail."""
    severity: Severity
    actions: Collection[str]
    """Those of the events that the rule sees, and no others."""
    key: Callable[[Event], str | None]
    """Return whom or what the event is counted for; None: the event does not concern this rule."""
    memory_lifetime: timedelta = timedelta(0)
    """For how long after its last event a key is remembered; zero: `judge` remembers nothing."""
    has_alert_event: bool = False
    """The trail has an `alert.raised` of it already, and gets no other one."""

    def evaluate(self, event: Event, memory: RuleMemory) -> bool:
        """Say whether the event raises the alert. memory: of the event's key, changed in place, JSON and bounded."""
        return True


@dataclass(frozen=True, kw_only=True)
class ThresholdRule(Rule):
    """Raises it when `least` different things came for one key within `keep`, and by each one after that.

    It remembers `least` things at most, by a short digest, with their times: those of the events, whenever they came.
    """

    threshold: int
    distinct_by: Callable[[Event], str] = lambda event: str(event.id)
    """Return what is counted, each once; unless given, the event itself."""

    def evaluate(self, event: Event, memory: RuleMemory) -> bool:
        """Say whether there are so many now."""
        at = event.occurred_at.timestamp()
        things: dict[str, float] = memory.setdefault("things", {})
        thing = _short_digest(self.distinct_by(event))
        is_new = thing not in things
        things[thing] = max(at, things.get(thing, at))
        gone = max(things.values()) - self.memory_lifetime.total_seconds()
        for old in [each for each, then in things.items() if then <= gone]:
            del things[old]
        if len(things) > self.threshold:
            del things[min(things, key=things.__getitem__)]
        return is_new and thing in things and len(things) >= self.threshold


@dataclass(frozen=True, kw_only=True)
class UnusualVolumeRule(Rule):
    """Raises it when one key has many more different things in a day (UTC) than on its days before, by each one more.

    Many more: more than `times` the median of the last `days` days on which there were any, and more than `least`.
    Where fewer than `known` of those days are known, more than `newcomer`. No more than `most` things are told apart.
    """

    distinct_by: Callable[[Event], str]
    median_factor: int = 3
    min_count: int = 30
    limit_without_baseline: int = 100
    min_known_days: int = 5
    baseline_days: int = 28
    max_distinct: int = 5_000
    memory_lifetime: timedelta = timedelta(days=60)

    def evaluate(self, event: Event, memory: RuleMemory) -> bool:
        """Say whether this is one more than usual."""
        day = event.occurred_at.date().isoformat()
        today: str = memory.setdefault("day", day)
        if day < today and not _is_ahead(today, day):
            # It came late; that day is counted.
            return False
        if day != today:
            memory["past"] = [*memory.get("past", ()), len(memory["things"])][-self.baseline_days :]
            memory["day"], memory["things"] = day, {}
        things: dict[str, int] = memory.setdefault("things", {})
        thing = _short_digest(self.distinct_by(event))
        if thing in things or len(things) >= self.max_distinct:
            return False
        things[thing] = 1
        return len(things) > self.get_daily_limit(memory.get("past", ()))

    def get_daily_limit(self, past_counts: Collection[int]) -> int:
        """Return how many are usual at most. past: how many there were on each day before."""
        usual = (
            max(self.min_count, int(self.median_factor * median(past_counts)))
            if len(past_counts) >= self.min_known_days
            else self.limit_without_baseline
        )
        return min(usual, self.max_distinct - 1)


def _is_ahead(today: str, day: str) -> bool:
    """Say whether today is a day that has not come yet, as from a clock that was wrong."""
    return date.fromisoformat(today) - date.fromisoformat(day) > timedelta(days=2)


def _short_digest(value: str) -> str:
    """Return a short name: what is remembered of a person or record is not who it is."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:16]


REFUSAL_ACTIONS = frozenset(
    {Action.LOGIN_REFUSED, Action.LOGOUT_REFUSED, Action.API_REFUSED, Action.ACTIVATION_REFUSED}
)
REPLAY_REASONS = frozenset({"state_replayed", "token_replayed", "logout_token_replayed"})
FORGERY_REASONS = frozenset(
    {
        "alg_not_allowed",
        "signature_invalid",
        "iss_mismatch",
        "nonce_invalid",
        "at_hash_invalid",
        "userinfo_sub_mismatch",
    }
)
EXPIRY_REASONS = frozenset({"exp_invalid", "token_expired"})
ALERT_SEVERITIES: Mapping[str, Severity] = {
    "access_token_lifetime": Severity.INFO,
    "break_glass_used": Severity.CRITICAL,
    "delivery_lag": Severity.WARNING,
    "delivery_refused": Severity.WARNING,
    "delivery_stopped": Severity.CRITICAL,
    "emergency_opened": Severity.CRITICAL,
    "event_forged": Severity.CRITICAL,
    "event_key_unknown": Severity.CRITICAL,
    "last_administrator": Severity.WARNING,
    "leak_body": Severity.WARNING,
    "leak_cookie": Severity.WARNING,
    "leak_header": Severity.WARNING,
    "leak_location": Severity.WARNING,
    "leak_referer": Severity.WARNING,
    "leak_request_cookie": Severity.WARNING,
    "leak_url": Severity.WARNING,
    "refusal_burst": Severity.WARNING,
    "revocation_abandoned": Severity.CRITICAL,
    "revocation_blocked": Severity.CRITICAL,
    "revocation_refused": Severity.WARNING,
    "sealing_lag": Severity.CRITICAL,
    "sealing_refused": Severity.CRITICAL,
    "session_undecryptable": Severity.WARNING,
    "spool_altered": Severity.CRITICAL,
}
"""The rules of `alert.raised` that others write: each is an alert of that kind."""


def get_builtin_rules() -> tuple[Rule, ...]:
    """Return the rules that come with the app."""
    return (
        *_refusal_rules(),
        *_disclosure_rules(),
        *_operation_rules(),
        *(_alert_event_rule(kind, ALERT_SEVERITIES[kind]) for kind in ALERT_SEVERITIES),
    )


def merge_rules(custom_rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return ours and the given ones; one of a kind that there is takes its place."""
    return tuple({rule.kind: rule for rule in (*get_builtin_rules(), *custom_rules)}.values())


def _refusal_rules() -> tuple[Rule, ...]:
    minutes = timedelta(minutes=5)

    def burst(kind: str, by: Callable[[Event], str | None], *, least: int, keep: timedelta) -> Rule:
        return ThresholdRule(
            kind=kind, severity=Severity.WARNING, actions=REFUSAL_ACTIONS, key=by, threshold=least, memory_lifetime=keep
        )

    return (
        burst("refusals_by_address", lambda event: event.client_ip or None, least=15, keep=minutes),
        burst("refusals_by_provider", lambda event: event.provider or None, least=60, keep=minutes),
        burst("refusals_by_person", _person_key, least=5, keep=2 * minutes),
        Rule(kind="replay", severity=Severity.WARNING, actions=REFUSAL_ACTIONS, key=_key_for_reasons(REPLAY_REASONS)),
        Rule(
            kind="token_forged",
            severity=Severity.CRITICAL,
            actions=REFUSAL_ACTIONS,
            key=_key_for_reasons(FORGERY_REASONS),
        ),
        Rule(
            kind="token_expired",
            key=_key_for_reasons(EXPIRY_REASONS),
            severity=Severity.WARNING,
            actions={Action.LOGIN_REFUSED},
        ),
        # Anybody's app is late with a refresh now and then.
        ThresholdRule(
            kind="expired_tokens_in_use",
            key=lambda event: (event.client_ip or event.provider) if event.reason in EXPIRY_REASONS else None,
            severity=Severity.WARNING,
            actions={Action.API_REFUSED},
            threshold=10,
            memory_lifetime=2 * minutes,
        ),
    )


def _disclosure_rules() -> tuple[Rule, ...]:
    looks = DISCLOSURE_ACTIONS | get_registered_disclosure_actions()
    return (
        UnusualVolumeRule(
            kind="many_records",
            severity=Severity.WARNING,
            actions=looks,
            key=lambda event: event.actor or None if _record_key(event) else None,
            distinct_by=_record_key,
        ),
        ThresholdRule(
            kind="record_of_interest",
            severity=Severity.WARNING,
            actions=looks,
            key=lambda event: _record_key(event) or None if event.actor else None,
            distinct_by=lambda event: event.actor,
            threshold=25,
            memory_lifetime=timedelta(days=1),
        ),
    )


def _operation_rules() -> tuple[Rule, ...]:
    return (
        ThresholdRule(
            kind="revocations_fail",
            severity=Severity.WARNING,
            actions={Action.TOKEN_REVOCATION_FAILED},
            key=lambda event: event.provider,
            threshold=10,
            memory_lifetime=timedelta(minutes=15),
        ),
        Rule(
            kind="trail_altered",
            severity=Severity.CRITICAL,
            actions={Action.AUDIT_VERIFIED},
            key=lambda event: "" if json.loads(event.detail).get("findings") else None,
        ),
    )


def _alert_event_rule(kind: str, severity: Severity) -> Rule:
    def by(event: Event) -> str | None:
        if json.loads(event.detail).get("rule") != kind:
            return None
        is_first_of_many = kind.startswith("event_")
        return ("" if is_first_of_many else event.resource) or event.provider or event.actor or event.reason

    return Rule(kind=kind, severity=severity, actions={Action.ALERT_RAISED}, key=by, has_alert_event=True)


def _key_for_reasons(reasons: Collection[str]) -> Callable[[Event], str | None]:
    """Return what gives the address, or else the provider, of a refusal for one of these reasons."""
    return lambda event: event.client_ip or event.provider if event.reason in reasons else None


def _person_key(event: Event) -> str | None:
    """Return whom a refusal is about: their pseudonym, the user of a code, or who is signed in."""
    return event.subject or event.resource or event.actor or None


def _record_key(event: Event) -> str:
    return event.subject or event.resource
