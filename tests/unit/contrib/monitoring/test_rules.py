"""Each rule raises for its pattern, but not just below its threshold, nor in a normal week."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.audit.events import Event
from django_phi_oidc.contrib.monitoring.rules import (
    ALERT_SEVERITIES,
    Rule,
    RuleMemory,
    Severity,
    ThresholdRule,
    UnusualVolumeRule,
    get_builtin_rules,
    merge_rules,
)
from tests.support.hospital_week import MONDAY, event, of, week

pytestmark = pytest.mark.sqlite
DOCS = Path(__file__).resolve().parents[4] / "docs"
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def raised(
    events: Iterable[Event], rules: Iterable[Rule] = get_builtin_rules(), memory: Any = None
) -> Counter[tuple[str, str]]:
    """Return how often each kind and key is raised. memory: the memories as JSON, updated in place."""
    memories = defaultdict[Any, RuleMemory](dict, {key: json.loads(state) for key, state in (memory or {}).items()})
    rules, counts = list(rules), Counter[tuple[str, str]]()
    for item in events:
        for rule in rules:
            key = rule.key(item) if item.action in rule.actions else None
            if key is not None:
                counts[rule.kind, key] += rule.evaluate(item, memories[rule.kind, key])
    if memory is not None:
        memory.update({key: json.dumps(state) for key, state in memories.items()})
    return +counts


def refusals(count: int, *, apart: timedelta = SECOND, **fields: Any) -> list[Event]:
    fields = {"reason": "provider_error", "outcome": "failure", **fields}
    action = fields.pop("action", "login.refused")
    return [event(action, at=MONDAY + number * apart, **fields) for number in range(count)]


def refused(reason: str, *, action: str = "login.refused", client_ip: str = "192.0.2.1", **fields: Any) -> list[Event]:
    return refusals(1, reason=reason, action=action, client_ip=client_ip, **fields)


def refused_logout(rule: str, **fields: Any) -> list[Event]:
    return refused("logout_token_invalid", action="logout.refused", detail={"rule": rule}, **fields)


def views(
    count: int, *, actor: str = "7", at: Any = MONDAY, first: int = 0, action: str = "claim.revealed"
) -> list[Event]:
    numbers = range(first, first + count)
    return [event(action, at=at + number * SECOND, actor=actor, subject=f"patient {number}") for number in numbers]


def viewers(by: int, *, apart: timedelta = MINUTE) -> list[Event]:
    return [
        event("access.granted", at=MONDAY + number * apart, actor=str(number), resource="Patient/7")
        for number in range(by)
    ]


def days_of(*counts: int) -> list[Event]:
    return [view for day, count in enumerate(counts) for view in views(count, at=MONDAY + day * DAY)]


def failures(count: int, *, apart: timedelta = SECOND) -> list[Event]:
    fields = {"action": "token.revocation_failed", "reason": "transport_timeout", "provider": "default"}
    return refusals(count, apart=apart, **fields)


def ends(people: int, *, apart: timedelta = SECOND, reason: str = "administrator") -> list[Event]:
    """Return the ends of two sessions of each person."""
    fields = {"reason": reason, "actor": "7"}
    return [
        event("session.ended", at=MONDAY + number // 2 * apart, subject=f"person {number // 2}", **fields)
        for number in range(2 * people)
    ]


def verified(findings: int) -> list[Event]:
    return [event("audit.verified", detail={"findings": findings})]


Pattern = tuple[str, str, list[Event], list[Event]]
PATTERNS: list[Pattern] = [
    (
        "refusals_by_address",
        "192.0.2.1",
        refusals(15, client_ip="192.0.2.1", apart=20 * SECOND),
        refusals(15, client_ip="192.0.2.1", apart=22 * SECOND),
    ),
    (
        "refusals_by_address",
        "192.0.2.1",
        refusals(15, client_ip="192.0.2.1", action="activation.refused"),
        [*refusals(14, client_ip="192.0.2.1"), *refusals(14, client_ip="192.0.2.2")],
    ),
    ("refusals_by_provider", "default", refusals(60, provider="default"), refusals(59, provider="default")),
    ("refusals_by_person", "7", refusals(5, actor="7", apart=2 * MINUTE), refusals(5, actor="7", apart=3 * MINUTE)),
    (
        "refusals_by_person",
        "user/7",
        refusals(5, resource="user/7", action="activation.refused"),
        refusals(4, resource="user/7", action="activation.refused"),
    ),
    ("replay", "192.0.2.1", refused("state_replayed"), refused("state_expired")),
    ("replay", "192.0.2.1", refused("token_replayed"), refused("id_token_missing")),
    (
        "replay",
        "192.0.2.1",
        refused("logout_token_replayed", action="logout.refused"),
        refused("logout_token_invalid", action="logout.refused"),
    ),
    (
        "logout_token_refused",
        "default",
        refused_logout("exp_invalid", provider="default"),
        refused("logout_token_replayed", action="logout.refused", provider="default"),
    ),
    ("logout_token_refused", "192.0.2.1", refused_logout("aud_invalid"), refused_logout("request_malformed")),
    ("token_forged", "192.0.2.1", refused("signature_invalid"), refused("auth_time_stale")),
    ("token_forged", "192.0.2.1", refused("alg_not_allowed", action="api.refused"), refused("token_malformed")),
    ("token_expired", "192.0.2.1", refused("exp_invalid"), refused("iat_invalid")),
    (
        "expired_tokens_in_use",
        "192.0.2.1",
        refusals(10, reason="exp_invalid", action="api.refused", client_ip="192.0.2.1", apart=MINUTE),
        refusals(9, reason="exp_invalid", action="api.refused", client_ip="192.0.2.1", apart=MINUTE),
    ),
    ("many_records", "7", days_of(10, 12, 9, 11, 10, 31), days_of(10, 12, 9, 11, 10, 30)),
    ("many_records", "7", days_of(40, 44, 42, 41, 43, 127), days_of(40, 44, 42, 41, 43, 126)),
    ("many_records", "7", days_of(101), days_of(100)),
    ("many_records", "7", views(101, action="access.granted"), [*views(60), *views(60)]),
    ("record_of_interest", "Patient/7", viewers(25), viewers(24)),
    ("record_of_interest", "Patient/7", viewers(25, apart=59 * MINUTE), viewers(25, apart=61 * MINUTE)),
    ("revocations_fail", "default", failures(10), failures(10, apart=2 * MINUTE)),
    ("many_sessions_ended", "7", ends(20), ends(19)),
    ("many_sessions_ended", "7", ends(20, apart=3 * MINUTE), ends(20, apart=4 * MINUTE)),
    ("many_sessions_ended", "7", ends(20), ends(20, reason="logout")),
    ("trail_altered", "", verified(1), verified(0)),
]


@pytest.mark.parametrize(("kind", "key", "pattern", "below_threshold"), PATTERNS)
def test_rule_raises_at_its_threshold_and_not_below(
    kind: str, key: str, pattern: list[Event], below_threshold: list[Event]
) -> None:
    assert raised(pattern)[kind, key] == 1
    assert kind not in {raised_kind for raised_kind, _key in raised(below_threshold)}


@pytest.mark.parametrize("kind", ALERT_SEVERITIES)
def test_alert_event_raises_an_alert_of_its_kind(kind: str) -> None:
    alert_event = event("alert.raised", resource="AuditEvent/1", provider="default", detail={"rule": kind})
    key = "default" if kind.startswith("event_") else "AuditEvent/1"
    assert raised([alert_event]) == {(kind, key): 1}
    assert raised([alert_event._replace(detail='{"rule":"another"}')]) == {}


def test_every_rule_is_documented_and_every_alert_event_has_a_rule() -> None:
    page = (DOCS / "how-to" / "detect-anomalies.md").read_text()
    alerts = (DOCS / "reference" / "events.md").read_text().partition("## Alerts")[2].partition("\n## ")[0]
    kinds = {rule.kind for rule in get_builtin_rules()}
    assert kinds - set(ALERT_SEVERITIES) <= set(re.findall(r"^\| `(\w+)`", page, re.M))
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|[^|]+", alerts, re.M)))) == set(ALERT_SEVERITIES)
    assert len(kinds) == len(get_builtin_rules())


@pytest.mark.parametrize(
    ("reason", "detail", "is_outage"),
    [
        ("provider_unavailable", {}, True),
        ("transport_timeout", {}, True),
        ("token_error", {"provider_status": 503}, True),
        ("par_error", {"provider_status": 429}, True),
        ("token_error", {"provider_status": 400}, False),
        ("provider_error", {"provider_status": 503}, False),
        ("state_unknown", {}, False),
    ],
)
def test_outage_of_the_provider_is_no_burst_of_an_address_or_person(
    reason: str, detail: dict[str, Any], is_outage: bool
) -> None:
    fields = {"reason": reason, "detail": detail, "client_ip": "192.0.2.1", "actor": "7", "provider": "default"}
    kinds = {kind for kind, _ in raised(refusals(60, **fields)) if kind.startswith("refusals_by")}
    assert kinds == {"refusals_by_provider", *(() if is_outage else ("refusals_by_address", "refusals_by_person"))}


def test_burst_is_counted_within_its_window_only() -> None:
    rule = next(rule for rule in get_builtin_rules() if rule.kind == "refusals_by_address")
    memory: dict[Any, str] = {}
    assert raised(refusals(115, client_ip="192.0.2.1"), [rule], memory)[rule.kind, "192.0.2.1"] == 101
    assert len(memory[rule.kind, "192.0.2.1"]) < 50 * 15
    later = [item._replace(occurred_at=item.occurred_at + HOUR) for item in refusals(14, client_ip="192.0.2.1")]
    assert raised(later, [rule], memory) == {}


def test_daily_volume_adapts_and_ignores_a_wrong_clock() -> None:
    rule = next(rule for rule in get_builtin_rules() if rule.kind == "many_records")
    assert isinstance(rule, UnusualVolumeRule)
    memory: dict[Any, str] = {}
    assert not raised(days_of(*[40] * 40), [rule], memory)
    state = json.loads(memory["many_records", "7"])
    assert (state["past"], len(state["things"])) == ([40] * 28, 40)
    assert not raised(views(50, at=MONDAY + 38 * DAY, first=500), [rule], memory), "late events are of another day"
    assert not raised(views(1, at=MONDAY + 4000 * DAY), [rule], memory)
    assert raised(views(121, at=MONDAY + 40 * DAY), [rule], memory) == {("many_records", "7"): 1}
    excessive = raised(views(9_000, at=MONDAY + 41 * DAY), [rule], memory)
    assert excessive["many_records", "7"] == rule.max_distinct - 120
    assert len(memory["many_records", "7"]) < 30 * rule.max_distinct
    assert rule.get_daily_limit([40] * 20 + [5_000] * 7) == 120, "a few excessive days do not raise the limit"


def test_memories_contain_no_identifiers() -> None:
    memory: dict[Any, str] = {}
    raised(views(20), memory=memory)
    assert memory
    assert not [state for state in memory.values() if "patient" in state]


@pytest.fixture(scope="module")
def normal_week() -> list[Event]:
    return [of(new_event) for new_event in week()]


def test_normal_week_raises_no_alert(normal_week: list[Event]) -> None:
    assert len(normal_week) == 100_000
    actions = Counter(item.action for item in normal_week)
    assert min(actions["login.refused"], actions["token.revocation_failed"]) >= 50
    assert raised(normal_week) == {}


PLANTED: dict[str, Callable[[], list[Event]]] = {
    "many_records": lambda: views(151, actor="100", at=MONDAY + 6 * DAY),
    "record_of_interest": lambda: viewers(45),
    "refusals_by_address": lambda: refusals(15, client_ip="192.0.2.1"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_anomaly_in_a_normal_week_is_the_only_alert(kind: str, normal_week: list[Event]) -> None:
    found = raised(sorted([*normal_week, *PLANTED[kind]()], key=lambda item: item.occurred_at))
    assert {raised_kind for raised_kind, _key in found} == {kind}


def test_project_rules_extend_or_replace_the_builtin_rules() -> None:
    new = Rule(
        kind="hospital_export", severity=Severity.INFO, actions={"hospital.exported"}, key=lambda item: item.actor
    )
    patient = ThresholdRule(
        kind="refusals_by_address",
        severity=Severity.INFO,
        actions={"login.refused"},
        key=lambda item: item.client_ip,
        threshold=100,
        memory_lifetime=HOUR,
    )
    rules = merge_rules([new, patient])
    assert [rule for rule in rules if rule not in get_builtin_rules() and rule.kind not in ALERT_SEVERITIES][-1] == new
    assert not [item for item in raised(refusals(99, client_ip="192.0.2.1"), rules) if item[0] == patient.kind]
    assert raised(refusals(100, client_ip="192.0.2.1"), rules)[patient.kind, "192.0.2.1"] == 1
