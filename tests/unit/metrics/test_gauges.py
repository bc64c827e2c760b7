"""Gauges that the databases give, and those that they don't; OpenTelemetry; a process without any of it."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from django_phi_oidc._internal import metrics as metering
from django_phi_oidc.audit.events import Action, NewEvent, Origin, register_actions
from django_phi_oidc.audit.models import AuditUnsealed
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.errors import AuditUnavailable
from django_phi_oidc.metrics import gauges as metrics
from django_phi_oidc.metrics.gauges import GAUGES, GaugeCache, measure_gauges
from django_phi_oidc.metrics.opentelemetry import OpenTelemetrySink
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.models import PendingRevocation, TokenToRevoke
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.session_fixtures import NOW, SignedIn

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.usefixtures("at_noon"),
]
SignIn = Callable[..., SignedIn]
LATER = NOW + timedelta(days=2)


class Kept:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []

    def count(self, metric: metering.Metric, labels: Any) -> None:
        assert set(labels) == set(metric.labels)
        self.told.append((metric.name, dict(labels)))

    def observe(self, metric: metering.Metric, seconds: float, labels: Any) -> None:
        assert seconds >= 0
        self.count(metric, labels)


@pytest.fixture
def kept() -> Any:
    sink = Kept()
    metering.set_sinks([sink])
    yield sink
    metering.set_sinks(())


def test_measure_counts_what_there_is(sign_in: SignIn) -> None:
    assert measure_gauges(now=NOW) == dict.fromkeys(GAUGES, 0)
    person = sign_in()
    doomed = TokenToRevoke(token=ReceivedToken(token_type_hint="access_token", value="a token"), provider="default")
    PendingRevocation.objects.queue([doomed], now=NOW)
    PendingRevocation.objects.queue([doomed], now=NOW, due_at=LATER)
    record_many([NewEvent(action=Action.AUDIT_VIEWED, origin=Origin(), now=NOW)])
    unsealed = AuditUnsealed.objects.using("phi_audit").count()
    assert unsealed > 0
    now = {"sessions_live": 1, "revocations_due": 1, "claims_overdue": 0, "events_unsealed": unsealed}
    assert measure_gauges(now=NOW) == now
    assert measure_gauges(now=LATER) == {**now, "revocations_due": 2, "claims_overdue": 1}
    StoredClaim.objects.filter(subject=person.subject).update(held_until=LATER + timedelta(days=1))
    assert measure_gauges(now=LATER)["claims_overdue"] == 0, "a legal hold keeps it"


def test_measure_counts_no_further_than_anybody_needs(sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in()
    sign_in()
    monkeypatch.setattr(metrics, "MAX_COUNT", 1)
    assert measure_gauges(now=NOW)["sessions_live"] == 1


def test_measure_leaves_out_what_a_database_does_not_give(caplog: pytest.LogCaptureFixture) -> None:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("ALTER TABLE django_phi_oidc_auditunsealed RENAME TO away")
    try:
        assert set(measure_gauges(now=NOW)) == set(GAUGES) - {"events_unsealed"}
    finally:
        with connections["phi_audit"].cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO django_phi_oidc_auditunsealed")
    assert "Cannot count events_unsealed" in caplog.text
    assert set(measure_gauges(now=NOW)) == set(GAUGES)


def test_gauges_are_asked_for_once_in_a_while(sign_in: SignIn) -> None:
    at = 100.0
    gauges = GaugeCache(monotonic=lambda: at)
    assert gauges.read()["sessions_live"] == 0
    sign_in()
    assert gauges.read()["sessions_live"] == 0
    at += metrics.CACHE_SECONDS
    assert gauges.read()["sessions_live"] == 1


def test_event_of_a_host_project_tells_neither_reason_nor_provider(kept: Kept) -> None:
    """Its words are the project's, and may be of a person."""
    register_actions({"hospital.metered": ()})
    told = {"origin": Origin(actor="7", session=str(uuid.uuid4())), "now": NOW, "provider": "p", "reason": "amina"}
    record_many([NewEvent(action="hospital.metered", **told), NewEvent(action=Action.LOGIN_REFUSED, **told)])
    ours = {"action": "login.refused", "outcome": "success", "provider": "p", "reason": "amina"}
    assert kept.told == [
        ("events", {"action": "hospital.metered", "outcome": "success", "provider": "", "reason": ""}),
        ("events", ours),
    ]


def test_event_that_is_not_committed_is_not_counted(kept: Kept) -> None:
    with audit_database_away(), pytest.raises(AuditUnavailable):
        record_many([NewEvent(action=Action.AUDIT_VIEWED, origin=Origin(), now=NOW)])
    assert kept.told == []


def test_timed_notes_a_block_that_fails_and_the_labels_that_it_fills_in(kept: Kept) -> None:
    told = {"provider": "p", "call": "token", "outcome": "error"}

    def fail() -> None:
        with metering.measure_duration(metering.PROVIDER_CALL_DURATION, **told) as labels:
            labels["outcome"] = "5xx"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert kept.told == [("provider_call", {**told, "outcome": "5xx"})]


def test_opentelemetry_gets_the_same(sign_in: SignIn) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    metering.set_sinks([OpenTelemetrySink(provider)])
    try:
        sign_in()
        metering.increment(
            metering.COMPLETED_SIGN_INS, provider="default", stage="callback", outcome="success", reason=""
        )
        with metering.measure_duration(metering.SIGN_IN_STEP_DURATION, provider="default", step="admit"):
            pass
        # As the SDK's exporter does, in a thread that no request ends.
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(reader.get_metrics_data()))
        thread.start()
        thread.join()
    finally:
        metering.set_sinks(())
        provider.shutdown()
    (scope,) = found[0].resource_metrics[0].scope_metrics
    points = {metric.name: (metric.unit, metric.data.data_points[0]) for metric in scope.metrics}
    assert points["phi_oidc.sign_ins"][1].value == 1
    assert dict(points["phi_oidc.sign_ins"][1].attributes)["outcome"] == "success"
    assert (points["phi_oidc.sign_in"][0], points["phi_oidc.sign_in"][1].count) == ("s", 1)
    assert points["phi_oidc.sessions_live"][1].value == 1
    assert {name for name in points if name.removeprefix("phi_oidc.") in GAUGES} == {f"phi_oidc.{n}" for n in GAUGES}


PROGRAM = """
import sys
for name in {blocked}:
    sys.modules[name] = None
from tests import settings
settings.PHI_OIDC["METRICS"] = {named}
import django
django.setup()
from django.core.checks import run_checks
from django_phi_oidc import urls
print(*[message.id for message in run_checks()], metering.is_on())
print(*[name for name in ("prometheus_client", "opentelemetry") if sys.modules.get(name)])
"""


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("blocked", "named", "said", "loaded"),
    [
        ((), (), "False", ""),
        ((), ("prometheus",), "True", "prometheus_client"),
        ((), ("opentelemetry",), "True", "opentelemetry"),
        (("prometheus_client",), ("prometheus",), "django_phi_oidc.E030 False", ""),
        (("opentelemetry",), ("opentelemetry",), "django_phi_oidc.E030 False", ""),
        (("prometheus_client", "opentelemetry"), (), "False", ""),
    ],
)
def test_extra_that_is_not_installed_is_told_of_and_one_that_is_not_asked_for_is_not_loaded(
    blocked: tuple[str, ...], named: tuple[str, ...], said: str, loaded: str
) -> None:
    """E030."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(blocked=blocked, named=named)],
        env={"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (0, f"{said}\n{loaded}\n"), ran.stderr


def test_registry_of_a_project_s_own_has_the_same(sign_in: SignIn) -> None:
    from django_phi_oidc.metrics.prometheus import PrometheusSink  # noqa: PLC0415

    registry = CollectorRegistry()
    PrometheusSink(registry).increment(
        metering.COMPLETED_SIGN_INS, dict.fromkeys(metering.COMPLETED_SIGN_INS.labels, "x")
    )
    assert b"phi_oidc_sign_ins_total{" in generate_latest(registry)
