"""Reports of refusals: event, log line and reference, with and without throttling."""

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditEvent, RefusalCount
from django_phi_oidc.audit.refusals import RefusalLog, ReportedRefusal, report_refusal
from django_phi_oidc.audit.throttling import MAX_EVENTS_PER_SENDER
from django_phi_oidc.errors import AuditUnavailable
from tests.support.audit_outage import audit_database_fails

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ORIGIN = Origin(client_ip="192.0.2.1", request_id="request-1")
LOGGER = logging.getLogger("django_phi_oidc.test")


def report(reason: str = "state_unknown", **options: Any) -> ReportedRefusal:
    log = RefusalLog(LOGGER, "refused: reason=%(reason)s reference=%(reference)s", {"reason": reason})
    return report_refusal(Action.LOGIN_REFUSED, reason, origin=ORIGIN, now=NOW, log=log, **options)


def test_refusal_is_recorded_and_logged_with_the_event_id(caplog: pytest.LogCaptureFixture) -> None:
    reference, audit_error = report(provider="default", detail={"stage": "callback"})
    event = AuditEvent.objects.get()
    assert (event.action, event.outcome, event.reason, event.provider) == (
        *("login.refused", "failure", "state_unknown", "default"),
    )
    assert (reference, audit_error) == (str(event.id), None)
    (record,) = (record for record in caplog.records if record.name == LOGGER.name)
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert record.getMessage() == f"refused: reason=state_unknown reference={event.id}"


def test_throttled_refusal_has_a_reference_in_the_form_of_an_event_id(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(MAX_EVENTS_PER_SENDER):
        report()
    reference, audit_error = report()
    assert AuditEvent.objects.count() == MAX_EVENTS_PER_SENDER
    assert (UUID(reference).version, audit_error) == (AuditEvent.objects.latest("id").id.version, None)
    assert reference in caplog.messages[-1]
    report(is_event_allowed=True)
    report(throttle_key="another")
    assert AuditEvent.objects.count() == MAX_EVENTS_PER_SENDER + 2


def test_throttle_key_is_counted_instead_of_the_reason() -> None:
    report(throttle_key="api:state_unknown")
    assert set(RefusalCount.objects.exclude(reason="").values_list("reason", flat=True)) == {"api:state_unknown"}


def test_refusal_is_logged_with_the_request_id_during_an_audit_outage(caplog: pytest.LogCaptureFixture) -> None:
    with audit_database_fails():
        reference, audit_error = report()
    assert reference == "request-1"
    assert isinstance(audit_error, AuditUnavailable)
    record = next(record for record in caplog.records if record.name == LOGGER.name)
    assert record.levelno == logging.ERROR
    assert record.exc_info


def test_refusal_caused_by_an_audit_error_is_not_recorded() -> None:
    error = AuditUnavailable()
    assert report(audit_error=error) == ("request-1", error)
    assert not AuditEvent.objects.exists()


def test_refusal_without_log_writes_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    report_refusal(Action.LOGIN_REFUSED, "state_unknown", origin=ORIGIN, now=NOW)
    assert AuditEvent.objects.count() == 1
    assert not [record for record in caplog.records if record.name.startswith("django_phi_oidc")]
