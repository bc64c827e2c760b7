"""P1 and P5: events that a reader cannot process have a row, one alert, and a command."""

import io
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.events import Action, NewEvent, Origin, serialize_event
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox, SetAsideEvent
from django_phi_oidc.audit.outbox import RETRY_INTERVAL, flush
from django_phi_oidc.audit.set_aside_events import set_aside_events
from django_phi_oidc.audit.storage import authenticate_event
from django_phi_oidc.extensions import event_readers
from tests.support.audit_log import NOW, forge_declaration, seal_now
from tests.support.officers import sign_in_officer

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def create_row(text: str | None = None) -> uuid.UUID:
    """Insert a row of the outbox, and return its id. text: instead of an event."""
    event = authenticate_event(NewEvent(Action.SESSION_ENDED, Origin(actor="7"), NOW))
    AuditOutbox.objects.create(id=event.event.id, event=serialize_event(event) if text is None else text)
    return event.event.id


def list_alerts(rule: str) -> list[dict[str, Any]]:
    details = [json.loads(event.detail) for event in AuditEvent.objects.filter(action=Action.ALERT_RAISED)]
    return [detail for detail in details if detail["rule"] == rule]


def run(*words: object) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "audit", "set-aside", *map(str, words), stdout=out, stderr=out)
    return out.getvalue()


def test_p5_poison_row_is_set_aside_once_and_a_valid_row_is_moved(caplog: pytest.LogCaptureFixture) -> None:
    poison, valid = create_row("{"), create_row()
    assert flush() == 1
    assert AuditEvent.objects.filter(id=valid).exists()
    assert SetAsideEvent.objects.get().event_id == poison
    for _ in range(5):
        assert flush() == 0
    assert caplog.text.count(f"outbox set event {poison} aside") == 1
    assert list_alerts("outbox_refused") == [{"rule": "outbox_refused", "count": 1, "event_ids": [str(poison)]}]


def test_p5_row_that_is_mended_is_moved_an_hour_later() -> None:
    poison = create_row("{")
    text = serialize_event(authenticate_event(NewEvent(Action.SESSION_ENDED, Origin(actor="7"), NOW)))
    flush()
    mended = json.loads(text)["id"]
    AuditOutbox.objects.filter(id=poison).delete()
    AuditOutbox.objects.create(id=mended, event=text)
    SetAsideEvent.objects.update(event_id=mended)
    assert flush() == 0
    SetAsideEvent.objects.update(tried_at=clock.now() - RETRY_INTERVAL)
    assert flush() == 1
    assert not SetAsideEvent.objects.exists()


def test_p5_operator_lists_retries_and_drops() -> None:
    poison, other = create_row("{\x1b[2J"), create_row("null")
    flush()
    rows = [json.loads(line) for line in run("list", "--json").splitlines()]
    assert {row["event_id"]: (row["reader"], row["error"]) for row in rows} == {
        str(poison): ("outbox", "ValueError"),
        str(other): ("outbox", "ValueError"),
    }
    with pytest.raises(CommandError, match="Still set aside: 2"):
        run("retry")
    with pytest.raises(CommandError, match="is not set aside"):
        run("drop", uuid7(NOW), "--reason", "x")
    assert AuditOutbox.objects.count() == 2
    dropped = run("drop", poison, "--reason", "planted by an intruder")
    assert dropped.splitlines() == [json.dumps("{\x1b[2J"), "Dropped: 1."]
    assert AuditOutbox.objects.get().id == other
    assert SetAsideEvent.objects.get().event_id == other
    operations = []
    for event in AuditEvent.objects.filter(action=Action.AUDIT_SET_ASIDE).order_by("id"):
        detail = json.loads(event.detail)
        operations.append((detail["operation"], detail["count"], event.resource, event.reason, event.actor[:3]))
    assert operations == [
        ("retry", 2, "EventReader/outbox", "", "os:"),
        ("drop", 1, "EventReader/outbox", "planted by an intruder", "os:"),
    ]


def test_p5_retry_moves_a_row_that_can_be_moved() -> None:
    event_id = create_row()
    with transaction.atomic():
        set_aside_events("outbox", {event_id: "ValueError"}, now=clock.now())
    assert flush() == 0
    assert "Processed: 1." in run("retry", event_id)
    assert AuditEvent.objects.filter(id=event_id).exists()
    assert not SetAsideEvent.objects.exists()
    assert not AuditOutbox.objects.exists()


def test_p5_row_of_an_app_that_is_not_installed_stays() -> None:
    with transaction.atomic():
        set_aside_events("gone:x", {uuid7(NOW): "ValueError"}, now=NOW)
    with pytest.raises(CommandError, match="Still set aside: 1"):
        run("retry")
    assert SetAsideEvent.objects.get().error == "LookupError"


def test_p5_thousands_of_rows_have_one_alert_a_flush() -> None:
    AuditOutbox.objects.bulk_create(
        [AuditOutbox(id=uuid7(NOW + timedelta(milliseconds=n)), event="x") for n in range(700)]
    )
    valid = create_row()
    assert flush() == 1
    assert AuditEvent.objects.filter(id=valid).exists()
    assert [alert["count"] for alert in list_alerts("outbox_refused")] == [700]
    assert len(list_alerts("outbox_refused")[0]["event_ids"]) == 64


def test_p1_sealer_lists_the_events_that_it_refuses() -> None:
    forged = forge_declaration("audit.archived", {})
    seal_now(at=NOW)
    assert f"{forged}  sealer: refused" in run("list")


@pytest.mark.parametrize(("permission", "status"), [("view_setasideevent", 200), ("view_auditcheckpoint", 403)])
def test_p1_page_lists_events_to_officers_with_the_permission(permission: str, status: int) -> None:
    poison = create_row("{")
    flush()
    response = sign_in_officer(permission).get("/admin/phi_oidc_audit/setasideevent/")
    assert response.status_code == status
    assert (str(poison) in response.content.decode()) == (status == 200)


def test_registry_has_the_reader_of_the_outbox_once() -> None:
    assert [reader.kind for reader in event_readers].count("outbox") == 1
