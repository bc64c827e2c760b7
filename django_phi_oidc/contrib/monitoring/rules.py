"""Anomaly rules over the audit log. No Django.

A rule sees each event once, in the order of the log. What it needs of earlier events is in
`memory`: bounded JSON.

Its `occurred_at` lies between the checkpoints before and after it was sealed: the clock of another
process cannot place it elsewhere.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import Any

from ...audit.actions import DISCLOSURE_ACTIONS
from ...audit.events import Action, Event, get_registered_disclosure_actions
from ...http.transport import is_outage_status
from .severity import Severity as Severity  # noqa: PLC0414 -- for rules of projects

RuleMemory = dict[str, Any]
MAX_CLOCK_ERROR = timedelta(days=2)
"""Memories further ahead of an event are of a time when the sealer's clock was wrong, and are not
used.
"""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Raises an alert for each event of its actions for which `key` returns a key: one alert per
    kind and key.
    """

    kind: str
    """A code: the name of the rule in alerts, mutes and the audit log."""
    severity: Severity = Severity.WARNING
    actions: Collection[str]
    """The rule sees only events with these actions."""
    key: Callable[[Event], str | None]
    """Return the person or thing that the event counts for; None: the event does not concern this
    rule.
    """
    memory_lifetime: timedelta = timedelta(0)
    """How long after its last event a key is remembered; zero: `evaluate` has no memory."""
    has_alert_event: bool = False
    """The audit log already has an `alert.raised` for it, and gets no second one."""

    def evaluate(self, event: Event, memory: RuleMemory) -> bool:
        """Return True if the event raises the alert. memory: of its key; changed in place; bounded
        JSON.
        """
        return True


@dataclass(frozen=True, kw_only=True)
class ThresholdRule(Rule):
    """Raises the alert for one key at `threshold` different items within `memory_lifetime`, and at
    each further one.

    It remembers at most `threshold` items, by a short digest, with the times of their events.
    """

    threshold: int
    distinct_by: Callable[[Event], str] = lambda event: str(event.id)
    """Return the item to count once; by default each event."""

    def evaluate(self, event: Event, memory: RuleMemory) -> bool:
        at = event.occurred_at.timestamp()
        things: dict[str, float] = memory.setdefault("things", {})
        expired_at = at - self.memory_lifetime.total_seconds()
        latest_at = at + MAX_CLOCK_ERROR.total_seconds()
        for name, last_at in list(things.items()):
            if not expired_at < last_at <= latest_at:
                del things[name]
        thing = _short_digest(self.distinct_by(event))
        if thing in things:
            things[thing] = max(at, things[thing])
            return False
        if len(things) >= self.threshold:
            del things[min(things, key=things.__getitem__)]
        things[thing] = at
        return len(things) >= self.threshold


@dataclass(frozen=True, kw_only=True)
class UnusualVolumeRule(Rule):
    """Raises the alert for each item above the daily limit (UTC) of one key.

    The limit is `median_factor` times the median of the last `baseline_days` days with any items,
    and at least `min_count`. With fewer than `min_known_days` such days it is
    `limit_without_baseline`. At most `max_distinct` items are counted.
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
        day = event.occurred_at.date().isoformat()
        today: str = memory.setdefault("day", day)
        # The stored day may be in the future, after an event with a wrong clock.
        is_ahead = date.fromisoformat(today) - date.fromisoformat(day) > MAX_CLOCK_ERROR
        if day < today and not is_ahead:
            # A late event of a day that is already counted.
            return False
        if day != today:
            memory["past"] = [*memory.get("past", ()), len(memory["things"])][-self.baseline_days :]
            memory["day"] = day
            memory["things"] = {}
        things: dict[str, int] = memory.setdefault("things", {})
        thing = _short_digest(self.distinct_by(event))
        if thing in things or len(things) >= self.max_distinct:
            return False
        things[thing] = 1
        return len(things) > self.get_daily_limit(memory.get("past", ()))

    def get_daily_limit(self, past_counts: Collection[int]) -> int:
        """Return the highest usual count. past_counts: of each earlier day."""
        limit = self.limit_without_baseline
        if len(past_counts) >= self.min_known_days:
            limit = max(self.min_count, int(self.median_factor * median(past_counts)))
        return min(limit, self.max_distinct - 1)


def _short_digest(value: str) -> str:
    """Return a short digest, so that memories contain no identifier of a person or record."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:16]


REFUSAL_ACTIONS = {
    Action.LOGIN_REFUSED,
    Action.LOGOUT_REFUSED,
    Action.SIGNAL_REFUSED,
    Action.API_REFUSED,
    Action.ACTIVATION_REFUSED,
}
REPLAY_REASONS = frozenset({"state_replayed", "token_replayed", "logout_token_replayed"})
FORGERY_REASONS = frozenset(
    {
        *(
            "alg_not_allowed",
            "signature_invalid",
            "iss_mismatch",
            "nonce_invalid",
            "subject_altered",
        ),
        "at_hash_invalid",
        "userinfo_sub_mismatch",
    }
)
OUTAGE_REASONS = frozenset(
    {"provider_unavailable", "provider_suspended", "transport_unreachable", "transport_timeout"}
)
"""While a provider is away, users try again: such refusals say nothing about the address or the
person.
"""
EXPIRY_REASONS = frozenset({"exp_invalid", "token_expired"})
ALERT_SEVERITIES: Mapping[str, Severity] = {
    "access_token_lifetime": Severity.INFO,
    "break_glass_used": Severity.CRITICAL,
    "delivery_lag": Severity.WARNING,
    "delivery_refused": Severity.WARNING,
    "delivery_stopped": Severity.CRITICAL,
    "emergency_limit": Severity.CRITICAL,
    "emergency_opened": Severity.CRITICAL,
    "encryption_key_missing": Severity.CRITICAL,
    "event_forged": Severity.CRITICAL,
    "event_invalid": Severity.CRITICAL,
    "event_key_retired": Severity.WARNING,
    "event_key_unknown": Severity.CRITICAL,
    "event_set_aside": Severity.CRITICAL,
    "event_unqueued": Severity.CRITICAL,
    "events_signed_late": Severity.WARNING,
    "identifier_changed": Severity.WARNING,
    "identifier_recycled": Severity.CRITICAL,
    "last_administrator": Severity.WARNING,
    "last_administrator_disabled": Severity.CRITICAL,
    "leak_body": Severity.WARNING,
    "leak_cookie": Severity.WARNING,
    "leak_header": Severity.WARNING,
    "leak_location": Severity.WARNING,
    "leak_referer": Severity.WARNING,
    "leak_request_cookie": Severity.WARNING,
    "leak_url": Severity.WARNING,
    "logout_sub_mismatch": Severity.WARNING,
    "outbox_refused": Severity.CRITICAL,
    "protection_altered": Severity.CRITICAL,
    "refusal_burst": Severity.WARNING,
    "retention_key_kept": Severity.CRITICAL,
    "revocation_abandoned": Severity.CRITICAL,
    "revocation_blocked": Severity.CRITICAL,
    "revocation_refused": Severity.WARNING,
    "sealing_lag": Severity.CRITICAL,
    "sealing_refused": Severity.CRITICAL,
    "session_undecryptable": Severity.WARNING,
    "signals_stopped": Severity.CRITICAL,
    "spool_altered": Severity.CRITICAL,
    "witness_invalid": Severity.CRITICAL,
    "witness_quorum": Severity.CRITICAL,
    "witness_refused": Severity.CRITICAL,
    "witness_unavailable": Severity.WARNING,
}
"""The rules of `alert.raised` events that other parts of the app write: each is an alert of that
kind.
"""


def get_builtin_rules() -> tuple[Rule, ...]:
    """Return the rules of the app."""
    alert_rules = []
    for kind, severity in ALERT_SEVERITIES.items():
        alert_rules.append(_alert_event_rule(kind, severity))
    return (*_refusal_rules(), *_disclosure_rules(), *_operation_rules(), *alert_rules)


def merge_rules(custom_rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the built-in and the custom rules; a custom rule replaces the built-in rule of the
    same kind.
    """
    rules: dict[str, Rule] = {}
    for rule in (*get_builtin_rules(), *custom_rules):
        rules[rule.kind] = rule
    return tuple(rules.values())


def _refusal_rules() -> tuple[Rule, ...]:
    five_minutes = timedelta(minutes=5)
    ten_minutes = timedelta(minutes=10)

    def burst(
        kind: str, key: Callable[[Event], str | None], threshold: int, lifetime: timedelta
    ) -> Rule:
        return ThresholdRule(
            kind=kind,
            actions=REFUSAL_ACTIONS,
            key=key,
            threshold=threshold,
            memory_lifetime=lifetime,
        )

    def refusal(
        kind: str,
        reasons: Collection[str],
        *,
        actions: Collection[str] = REFUSAL_ACTIONS,
        severity: Severity = Severity.WARNING,
    ) -> Rule:
        def key(event: Event) -> str | None:
            if event.reason in reasons:
                return event.client_ip or event.provider
            return None

        return Rule(kind=kind, severity=severity, actions=actions, key=key)

    return (
        burst(
            "refusals_by_address",
            lambda event: _unless_outage(event, event.client_ip),
            15,
            five_minutes,
        ),
        burst("refusals_by_provider", lambda event: event.provider or None, 60, five_minutes),
        # By the pseudonym, the user of a code, or the signed-in user.
        burst(
            "refusals_by_person",
            lambda event: _unless_outage(event, event.subject or event.resource or event.actor),
            5,
            ten_minutes,
        ),
        refusal("replay", REPLAY_REASONS),
        Rule(
            kind="logout_token_refused",
            actions={Action.LOGOUT_REFUSED},
            key=_withdrawal_refusal_key,
        ),
        Rule(kind="signal_refused", actions={Action.SIGNAL_REFUSED}, key=_withdrawal_refusal_key),
        refusal("token_forged", FORGERY_REASONS, severity=Severity.CRITICAL),
        refusal("token_expired", EXPIRY_REASONS, actions={Action.LOGIN_REFUSED}),
        # A single late refresh by an app is normal.
        ThresholdRule(
            kind="expired_tokens_in_use",
            key=_expired_token_key,
            actions={Action.API_REFUSED},
            threshold=10,
            memory_lifetime=ten_minutes,
        ),
    )


def _expired_token_key(event: Event) -> str | None:
    """Return the address or the provider that an expired token came from."""
    if event.reason in EXPIRY_REASONS:
        return event.client_ip or event.provider
    return None


def _unless_outage(event: Event, key: str) -> str | None:
    """Return the key, or None if the provider was away, so that neither the address nor the person
    is the reason.
    """
    if event.reason in ("token_error", "par_error"):
        status = json.loads(event.detail).get("provider_status", 0)
    else:
        status = 0
    if event.reason in OUTAGE_REASONS or is_outage_status(status):
        return None
    return key or None


def _withdrawal_refusal_key(event: Event) -> str | None:
    """Return the provider whose sessions a refused logout token or security event has not ended, or
    the sender.

    The endpoints are public: a request that contains no token is neither of them. A token that
    ended sessions before is counted by `replay`.
    """
    if json.loads(event.detail).get("rule") in (None, "request_malformed", "token_malformed"):
        return None
    return event.provider or event.client_ip or None


def _disclosure_rules() -> tuple[Rule, ...]:
    disclosures = DISCLOSURE_ACTIONS | get_registered_disclosure_actions()
    return (
        UnusualVolumeRule(
            kind="many_records",
            actions=disclosures,
            key=_record_actor_key,
            distinct_by=_record_key,
        ),
        ThresholdRule(
            kind="record_of_interest",
            actions=disclosures,
            key=_viewed_record_key,
            distinct_by=lambda event: event.actor,
            threshold=25,
            memory_lifetime=timedelta(days=1),
        ),
    )


def _record_actor_key(event: Event) -> str | None:
    """Return the account that a record was disclosed to; None without an account or a record."""
    if not _record_key(event):
        return None
    return event.actor or None


def _viewed_record_key(event: Event) -> str | None:
    """Return the record that was disclosed to an account; None without an account or a record."""
    if not event.actor:
        return None
    return _record_key(event) or None


def _operation_rules() -> tuple[Rule, ...]:
    return (
        ThresholdRule(
            kind="revocations_fail",
            actions={Action.TOKEN_REVOCATION_FAILED},
            key=lambda event: event.provider,
            threshold=10,
            memory_lifetime=timedelta(minutes=15),
        ),
        # One person who ends the sessions of many people, one by one or together.
        ThresholdRule(
            kind="many_sessions_ended",
            actions={Action.SESSION_ENDED},
            key=_session_end_actor_key,
            distinct_by=lambda event: event.subject or event.resource or event.session,
            threshold=20,
            memory_lifetime=timedelta(hours=1),
        ),
        Rule(
            kind="trail_altered",
            severity=Severity.CRITICAL,
            actions={Action.AUDIT_VERIFIED},
            key=_findings_key,
        ),
    )


def _session_end_actor_key(event: Event) -> str | None:
    """Return the account or the operator that ended the session of somebody; None for an end that
    no administrator requested.
    """
    if event.reason == "administrator":
        return event.actor
    return None


def _findings_key(event: Event) -> str | None:
    """Return one key for all verifications with findings."""
    if json.loads(event.detail).get("findings"):
        return ""
    return None


def _alert_event_rule(kind: str, severity: Severity) -> Rule:
    def key(event: Event) -> str | None:
        if json.loads(event.detail).get("rule") != kind:
            return None
        # The resource of `event_` alerts is only the first of many events.
        if event.resource and not kind.startswith("event_"):
            return event.resource
        return event.provider or event.actor or event.reason

    return Rule(
        kind=kind, severity=severity, actions={Action.ALERT_RAISED}, key=key, has_alert_event=True
    )


def _record_key(event: Event) -> str:
    return event.subject or event.resource
