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

from ..audit.events import Action, Event, registered_disclosures
from ..audit.vocabulary import LOOKS

Memory = dict[str, Any]


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
    by: Callable[[Event], str | None]
    """Return whom or what the event is counted for; None: the event does not concern this rule."""
    keep: timedelta = timedelta(0)
    """For how long after its last event a key is remembered; zero: `judge` remembers nothing."""
    is_told: bool = False
    """The trail has an `alert.raised` of it already, and gets no other one."""

    def judge(self, event: Event, memory: Memory) -> bool:
        """Say whether the event raises the alert. memory: of the event's key, changed in place, JSON and bounded."""
        return True


@dataclass(frozen=True, kw_only=True)
class Many(Rule):
    """Raises it when `least` different things came for one key within `keep`, and by each one after that.

    It remembers `least` things at most, by a short digest, with their times: those of the events, whenever they came.
    """

    least: int
    of: Callable[[Event], str] = lambda event: str(event.id)
    """Return what is counted, each once; unless given, the event itself."""

    def judge(self, event: Event, memory: Memory) -> bool:
        """Say whether there are so many now."""
        at = event.occurred_at.timestamp()
        things: dict[str, float] = memory.setdefault("things", {})
        thing = _digest(self.of(event))
        is_new = thing not in things
        things[thing] = max(at, things.get(thing, at))
        gone = max(things.values()) - self.keep.total_seconds()
        for old in [each for each, then in things.items() if then <= gone]:
            del things[old]
        if len(things) > self.least:
            del things[min(things, key=things.__getitem__)]
        return is_new and thing in things and len(things) >= self.least


@dataclass(frozen=True, kw_only=True)
class Unusual(Rule):
    """Raises it when one key has many more different things in a day (UTC) than on its days before, by each one more.

    Many more: more than `times` the median of the last `days` days on which there were any, and more than `least`.
    Where fewer than `known` of those days are known, more than `newcomer`. No more than `most` things are told apart.
    """

    of: Callable[[Event], str]
    times: int = 3
    least: int = 30
    newcomer: int = 100
    known: int = 5
    days: int = 28
    most: int = 5_000
    keep: timedelta = timedelta(days=60)

    def judge(self, event: Event, memory: Memory) -> bool:
        """Say whether this is one more than usual."""
        day = event.occurred_at.date().isoformat()
        today: str = memory.setdefault("day", day)
        if day < today and not _is_ahead(today, day):
            # It came late; that day is counted.
            return False
        if day != today:
            memory["past"] = [*memory.get("past", ()), len(memory["things"])][-self.days :]
            memory["day"], memory["things"] = day, {}
        things: dict[str, int] = memory.setdefault("things", {})
        thing = _digest(self.of(event))
        if thing in things or len(things) >= self.most:
            return False
        things[thing] = 1
        return len(things) > self.limit(memory.get("past", ()))

    def limit(self, past: Collection[int]) -> int:
        """Return how many are usual at most. past: how many there were on each day before."""
        usual = max(self.least, int(self.times * median(past))) if len(past) >= self.known else self.newcomer
        return min(usual, self.most - 1)


def _is_ahead(today: str, day: str) -> bool:
    """Say whether today is a day that has not come yet, as from a clock that was wrong."""
    return date.fromisoformat(today) - date.fromisoformat(day) > timedelta(days=2)


def _digest(thing: str) -> str:
    """Return a short name: what is remembered of a person or record is not who it is."""
    return hashlib.sha256(thing.encode("utf-8", "surrogatepass")).hexdigest()[:16]


REFUSALS = frozenset({Action.LOGIN_REFUSED, Action.LOGOUT_REFUSED, Action.API_REFUSED, Action.ACTIVATION_REFUSED})
REPLAYED = frozenset({"state_replayed", "token_replayed", "logout_token_replayed"})
FORGED = frozenset(
    {
        "alg_not_allowed",
        "signature_invalid",
        "iss_mismatch",
        "nonce_invalid",
        "at_hash_invalid",
        "userinfo_sub_mismatch",
    }
)
EXPIRED = frozenset({"exp_invalid", "token_expired"})
ALERTS: Mapping[str, Severity] = {
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


def ours() -> tuple[Rule, ...]:
    """Return the rules that come with the app."""
    return (*_of_refusals(), *_of_looks(), *_of_operation(), *(_told(kind, ALERTS[kind]) for kind in ALERTS))


def merged(given: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return ours and the given ones; one of a kind that there is takes its place."""
    return tuple({rule.kind: rule for rule in (*ours(), *given)}.values())


def _of_refusals() -> tuple[Rule, ...]:
    minutes = timedelta(minutes=5)

    def burst(kind: str, by: Callable[[Event], str | None], *, least: int, keep: timedelta) -> Rule:
        return Many(kind=kind, severity=Severity.WARNING, actions=REFUSALS, by=by, least=least, keep=keep)

    return (
        burst("refusals_by_address", lambda event: event.client_ip or None, least=15, keep=minutes),
        burst("refusals_by_provider", lambda event: event.provider or None, least=60, keep=minutes),
        burst("refusals_by_person", _person, least=5, keep=2 * minutes),
        Rule(kind="replay", severity=Severity.WARNING, actions=REFUSALS, by=_of_reasons(REPLAYED)),
        Rule(kind="token_forged", severity=Severity.CRITICAL, actions=REFUSALS, by=_of_reasons(FORGED)),
        Rule(
            kind="token_expired",
            by=_of_reasons(EXPIRED),
            severity=Severity.WARNING,
            actions={Action.LOGIN_REFUSED},
        ),
        # Anybody's app is late with a refresh now and then.
        Many(
            kind="expired_tokens_in_use",
            by=lambda event: (event.client_ip or event.provider) if event.reason in EXPIRED else None,
            severity=Severity.WARNING,
            actions={Action.API_REFUSED},
            least=10,
            keep=2 * minutes,
        ),
    )


def _of_looks() -> tuple[Rule, ...]:
    looks = LOOKS | registered_disclosures()
    return (
        Unusual(
            kind="many_records",
            severity=Severity.WARNING,
            actions=looks,
            by=lambda event: event.actor or None if _record(event) else None,
            of=_record,
        ),
        Many(
            kind="record_of_interest",
            severity=Severity.WARNING,
            actions=looks,
            by=lambda event: _record(event) or None if event.actor else None,
            of=lambda event: event.actor,
            least=25,
            keep=timedelta(days=1),
        ),
    )


def _of_operation() -> tuple[Rule, ...]:
    return (
        Many(
            kind="revocations_fail",
            severity=Severity.WARNING,
            actions={Action.TOKEN_REVOCATION_FAILED},
            by=lambda event: event.provider,
            least=10,
            keep=timedelta(minutes=15),
        ),
        Rule(
            kind="trail_altered",
            severity=Severity.CRITICAL,
            actions={Action.AUDIT_VERIFIED},
            by=lambda event: "" if json.loads(event.detail).get("findings") else None,
        ),
    )


def _told(kind: str, severity: Severity) -> Rule:
    def by(event: Event) -> str | None:
        if json.loads(event.detail).get("rule") != kind:
            return None
        is_first_of_many = kind.startswith("event_")
        return ("" if is_first_of_many else event.resource) or event.provider or event.actor or event.reason

    return Rule(kind=kind, severity=severity, actions={Action.ALERT_RAISED}, by=by, is_told=True)


def _of_reasons(reasons: Collection[str]) -> Callable[[Event], str | None]:
    """Return what gives the address, or else the provider, of a refusal for one of these reasons."""
    return lambda event: event.client_ip or event.provider if event.reason in reasons else None


def _person(event: Event) -> str | None:
    """Return whom a refusal is about: their pseudonym, the user of a code, or who is signed in."""
    return event.subject or event.resource or event.actor or None


def _record(event: Event) -> str:
    return event.subject or event.resource
