"""The health check for load balancers."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_phi_oidc.audit.models import AuditEvent, AuditUnsealed
from django_phi_oidc.contrib.monitoring import health
from django_phi_oidc.contrib.monitoring.health import PROBE_SECONDS, WriteProbe
from tests.support.audit_log import events, seal_now
from tests.support.audit_outage import audit_database_hangs
from tests.support.audit_tampering import executed
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.leaking_views"),
]
WORKING = {"database": "working", "trail": "working", "keys": "working"}


@dataclass
class Moment:
    """The monotonic time of the probe."""

    seconds: float = 0.0


@pytest.fixture(autouse=True)
def probe(monkeypatch: pytest.MonkeyPatch) -> Moment:
    """Return the clock of a new probe, whose answer no earlier request has."""
    moment = Moment()
    monkeypatch.setattr(health, "_write_probe", WriteProbe(monotonic=lambda: moment.seconds))
    return moment


@pytest.fixture
def away(request: pytest.FixtureRequest) -> Any:
    """Make every statement on that database fail, as after an outage."""
    from django.db import OperationalError  # noqa: PLC0415

    def fail(*call: Any) -> None:
        raise OperationalError("a host, a user and a password")

    connections[request.param].execute_wrappers.append(fail)
    yield request.param
    connections[request.param].execute_wrappers.remove(fail)


def test_health_of_a_working_server_is_200_without_a_session() -> None:
    response = Client().get(reverse("oidc_health"))
    assert (response.status_code, response.json()) == (200, WORKING)
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    assert not response.cookies
    assert Client().head(reverse("oidc_health")).status_code == 200
    assert Client().post(reverse("oidc_health")).status_code == 405


@pytest.mark.parametrize(("away", "part"), [("default", "database"), ("phi_audit", "trail")], indirect=["away"])
def test_health_without_a_database_is_500_without_a_reason(away: str, part: str) -> None:
    response = Client().get(reverse("oidc_health"))
    assert (response.status_code, response.json()) == (500, {**WORKING, part: "unavailable"})


@pytest.mark.parametrize("ring", ["encryption", "audit_mac"])
def test_health_without_keys_is_500(ring: str, settings: Any, tmp_path: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={ring: tmp_path / "a missing file"})
    response = Client().get(reverse("oidc_health"))
    assert (response.status_code, response.json()) == (500, {**WORKING, "keys": "unavailable"})


@pytest.mark.postgresql
def test_d7_health_is_500_while_the_audit_database_refuses_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    connections["phi_audit"].close()
    with monkeypatch.context() as patch:
        patch.setitem(connections["phi_audit"].settings_dict, "PORT", "1")
        response = Client().get(reverse("oidc_health"))
        assert (response.status_code, response.json()) == (500, {**WORKING, "trail": "unavailable"})
    assert trail_of(Client().get(reverse("oidc_health"))) == (200, "working")


def trail_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["trail"]


def read_only_log() -> AbstractContextManager[None]:
    setting = {"postgresql": "SET default_transaction_read_only", "sqlite": "PRAGMA query_only"}
    statement = setting[connections["phi_audit"].vendor]
    return executed(f"{statement} = on", f"{statement} = off")


def full_log() -> AbstractContextManager[None]:
    """Refuse each new row as a full disk does: with an error of the same class at the INSERT."""
    trigger = "CREATE TRIGGER full_disk BEFORE INSERT ON phi_oidc_audit_auditunsealed "
    if connections["phi_audit"].vendor == "sqlite":
        refusal = "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        return executed(trigger + refusal, "DROP TRIGGER full_disk")
    return executed(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;"
        f"{trigger} FOR EACH ROW EXECUTE FUNCTION full_disk()",
        "DROP TRIGGER full_disk ON phi_oidc_audit_auditunsealed; DROP FUNCTION full_disk()",
    )


def log_that_drops_rows() -> AbstractContextManager[None]:
    return executed(
        "CREATE RULE dropped AS ON INSERT TO phi_oidc_audit_auditevent DO INSTEAD NOTHING",
        "DROP RULE dropped ON phi_oidc_audit_auditevent",
    )


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(read_only_log, marks=pytest.mark.without_pooler("it sets an option of a connection")),
        full_log,
        pytest.param(audit_database_hangs, marks=pytest.mark.postgresql),
        pytest.param(log_that_drops_rows, marks=pytest.mark.postgresql),
    ],
)
def test_d7_health_is_500_while_no_event_can_be_written(fault: Any, probe: Moment) -> None:
    assert trail_of(Client().get(reverse("oidc_health"))) == (200, "working")
    with fault():
        probe.seconds += PROBE_SECONDS
        assert trail_of(Client().get(reverse("oidc_health"))) == (500, "unavailable")
    probe.seconds += PROBE_SECONDS
    assert trail_of(Client().get(reverse("oidc_health"))) == (200, "working")


@pytest.mark.postgresql
def test_d7_locked_log_does_not_cost_the_connection(probe: Moment) -> None:
    """The server ends the statement before the deadline shuts the connection down."""
    assert trail_of(Client().get(reverse("oidc_health"))) == (200, "working")
    driver_connection = connections["phi_audit"].connection
    probe.seconds += PROBE_SECONDS
    with audit_database_hangs():
        assert trail_of(Client().get(reverse("oidc_health"))) == (500, "unavailable")
    assert not driver_connection.broken


def test_d7_health_leaves_no_event_no_queue_row_and_no_log_line(
    probe: Moment, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="phi_oidc.audit"):
        for _ in range(3):
            probe.seconds += PROBE_SECONDS
            assert trail_of(Client().get(reverse("oidc_health"))) == (200, "working")
    assert (AuditEvent.objects.count(), AuditUnsealed.objects.count()) == (0, 0)
    assert not caplog.records
    events(1)
    assert seal_now().event_count == 1


def test_d7_many_health_requests_write_once_in_five_seconds(probe: Moment) -> None:
    with CaptureQueriesContext(connections["phi_audit"]) as queries:
        for seconds in (0.0, 1.0, PROBE_SECONDS - 0.1):
            probe.seconds = seconds
            assert trail_of(Client().get(reverse("oidc_health"))) == (200, "working")
    inserts = [query for query in queries if "INSERT INTO" in query["sql"].upper()]
    assert len(inserts) == 1
