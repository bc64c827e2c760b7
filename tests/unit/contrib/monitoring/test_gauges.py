"""Gauges with and without a database, the OpenTelemetry sink, and processes without the extras."""

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
from django_phi_oidc.contrib.monitoring import gauges as metrics
from django_phi_oidc.contrib.monitoring.gauges import GAUGES, GaugeCache, measure_gauges
from django_phi_oidc.contrib.monitoring.opentelemetry import OpenTelemetrySink
from django_phi_oidc.errors import AuditUnavailable
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


class RecordingSink:
    """A sink that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []

    def increment(self, metric: metering.Metric, labels: Any) -> None:
        assert set(labels) == set(metric.labels)
        self.calls.append((metric.name, dict(labels)))

    def observe(self, metric: metering.Metric, seconds: float, labels: Any) -> None:
        assert seconds >= 0
        self.increment(metric, labels)


@pytest.fixture
def sink() -> Any:
    sink = RecordingSink()
    metering.set_sinks([sink])
    yield sink
    metering.set_sinks(())


def test_measure_counts_existing_rows(sign_in: SignIn) -> None:
    assert measure_gauges(now=NOW) == dict.fromkeys(GAUGES, 0)
    person = sign_in()
    token = TokenToRevoke(token=ReceivedToken(token_type_hint="access_token", value="a token"), provider="default")
    PendingRevocation.objects.queue([token], now=NOW)
    PendingRevocation.objects.queue([token], now=LATER)
    record_many([NewEvent(action=Action.AUDIT_VIEWED, origin=Origin(), now=NOW)])
    unsealed = AuditUnsealed.objects.using("phi_audit").count()
    assert unsealed > 0
    now = {"sessions_live": 1, "revocations_due": 1, "claims_overdue": 0, "events_unsealed": unsealed}
    assert measure_gauges(now=NOW) == now
    assert measure_gauges(now=LATER) == {**now, "revocations_due": 2, "claims_overdue": 1}
    StoredClaim.objects.filter(subject=person.subject).update(held_until=LATER + timedelta(days=1))
    assert measure_gauges(now=LATER)["claims_overdue"] == 0, "a legal hold keeps it"


def test_measure_stops_counting_at_the_maximum(sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in()
    sign_in()
    monkeypatch.setattr(metrics, "MAX_COUNT", 1)
    assert measure_gauges(now=NOW)["sessions_live"] == 1


def test_gauge_of_an_unavailable_table_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("ALTER TABLE phi_oidc_audit_auditunsealed RENAME TO away")
    try:
        assert set(measure_gauges(now=NOW)) == set(GAUGES) - {"events_unsealed"}
    finally:
        with connections["phi_audit"].cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO phi_oidc_audit_auditunsealed")
    assert "Cannot count events_unsealed" in caplog.text
    assert set(measure_gauges(now=NOW)) == set(GAUGES)


def test_gauges_are_cached_for_some_seconds(sign_in: SignIn) -> None:
    at = 100.0
    gauges = GaugeCache(monotonic=lambda: at)
    assert gauges.read()["sessions_live"] == 0
    sign_in()
    assert gauges.read()["sessions_live"] == 0
    at += metrics.CACHE_SECONDS
    assert gauges.read()["sessions_live"] == 1


def test_event_of_a_host_project_is_counted_without_reason_and_provider(sink: RecordingSink) -> None:
    """The project chooses these texts, so they may identify a person."""
    register_actions({"hospital.metered": ()})
    fields = {"origin": Origin(actor="7", session=str(uuid.uuid4())), "now": NOW, "provider": "p", "reason": "amina"}
    record_many([NewEvent(action="hospital.metered", **fields), NewEvent(action=Action.LOGIN_REFUSED, **fields)])
    builtin_event = {"action": "login.refused", "outcome": "success", "provider": "p", "reason": "amina"}
    assert sink.calls == [
        ("events", {"action": "hospital.metered", "outcome": "success", "provider": "", "reason": ""}),
        ("events", builtin_event),
    ]


def test_event_that_is_not_committed_is_not_counted(sink: RecordingSink) -> None:
    with audit_database_away(), pytest.raises(AuditUnavailable):
        record_many([NewEvent(action=Action.AUDIT_VIEWED, origin=Origin(), now=NOW)])
    assert sink.calls == []


def test_duration_of_a_failed_block_is_measured_with_its_labels(sink: RecordingSink) -> None:
    default_labels = {"provider": "p", "call": "token", "outcome": "error"}

    def fail() -> None:
        with metering.measure_duration(metering.PROVIDER_CALL_DURATION, **default_labels) as labels:
            labels["outcome"] = "5xx"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sink.calls == [("provider_call", {**default_labels, "outcome": "5xx"})]


def test_opentelemetry_sink_exports_counters_timers_and_gauges(sign_in: SignIn) -> None:
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
        # Like the exporter of the SDK, in a thread without requests.
        exported: list[Any] = []
        thread = threading.Thread(target=lambda: exported.append(reader.get_metrics_data()))
        thread.start()
        thread.join()
    finally:
        metering.set_sinks(())
        provider.shutdown()
    (scope,) = exported[0].resource_metrics[0].scope_metrics
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
from django_phi_oidc._internal import metrics as metering
print(*[message.id for message in run_checks()], metering.has_sinks())
print(*[name for name in ("prometheus_client", "opentelemetry") if sys.modules.get(name)])
"""


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("blocked", "named", "output", "loaded"),
    [
        ((), (), "False", ""),
        ((), ("prometheus",), "True", "prometheus_client"),
        ((), ("opentelemetry",), "True", "opentelemetry"),
        (("prometheus_client",), ("prometheus",), "django_phi_oidc.E030 False", ""),
        (("opentelemetry",), ("opentelemetry",), "django_phi_oidc.E030 False", ""),
        (("prometheus_client", "opentelemetry"), (), "False", ""),
    ],
)
def test_missing_extra_is_reported_and_an_unused_extra_is_not_imported(
    blocked: tuple[str, ...], named: tuple[str, ...], output: str, loaded: str
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
    assert (ran.returncode, ran.stdout) == (0, f"{output}\n{loaded}\n"), ran.stderr


def test_prometheus_sink_uses_a_custom_registry(sign_in: SignIn) -> None:
    from django_phi_oidc.contrib.monitoring.prometheus import PrometheusSink  # noqa: PLC0415

    registry = CollectorRegistry()
    PrometheusSink(registry).increment(
        metering.COMPLETED_SIGN_INS, dict.fromkeys(metering.COMPLETED_SIGN_INS.labels, "x")
    )
    assert b"phi_oidc_sign_ins_total{" in generate_latest(registry)
