"""Emergency access: opening, granted access and its events, end, review, mail, and the spool."""

import json
import smtplib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_phi_oidc._internal import clock
from django_phi_oidc.access.decisions import authorize
from django_phi_oidc.access.policy import AccessPolicy
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.outbox import flush as drain_outbox
from django_phi_oidc.audit.outbox import reset_cooldown
from django_phi_oidc.contrib.emergency import lifecycle, notifications
from django_phi_oidc.contrib.emergency.errors import EmergencyRefused
from django_phi_oidc.contrib.emergency.lifecycle import (
    list_emergency_events,
    open_emergency,
    review_emergency,
)
from django_phi_oidc.contrib.emergency.models import (
    ALL_RESOURCES,
    CloseReason,
    EmergencyAccess,
    ReviewVerdict,
)
from django_phi_oidc.contrib.emergency.spool import MAX_SPOOL_BYTES, has_spooled_events
from django_phi_oidc.contrib.emergency.tasks import tend_emergencies
from django_phi_oidc.errors import AuditUnavailable
from tests.support import guarded_views as wards
from tests.support.audit_outage import audit_database_fails, audit_database_hangs
from tests.support.emergency_access import OFFICER, REASON, actor, allow, declare, forbid, list_events, opened
from tests.support.guarded_views import ASKED, HELD, PERMISSION, RAN
from tests.support.mail_server import mail_server  # noqa: F401 -- a fixture
from tests.support.mail_settings import REFUSING_BACKEND, mail_by
from tests.support.session_fixtures import BACKEND, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.guarded_views"),
]
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
OPEN, EVERYWHERE, REVIEW = "open_emergencyaccess", "open_emergencyaccess_everywhere", "review_emergencyaccess"


@pytest.fixture(autouse=True)
def _wards(settings: Any) -> Iterator[None]:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    declare(settings)
    for collection in (HELD, ASKED, RAN):
        collection.clear()
    yield
    HELD.clear()


@pytest.fixture
def scene(sign_in: Callable[[], SignedIn]) -> SimpleNamespace:
    """Return a clinician actor_kind may open emergencies, and has no permission on any patient."""
    users = get_user_model()._default_manager
    clinician = sign_in()
    patient, other = (users.create_user(username=name) for name in ("patient", "other"))
    user = allow(clinician.user, OPEN)
    return SimpleNamespace(user=user, client=clinician.client(), patient=patient.pk, other=other.pk)


def create_user(*codenames: str) -> Any:
    return allow(get_user_model()._default_manager.create_user(username=uuid.uuid4().hex), *codenames)


def get_status(scene: SimpleNamespace, pk: int | None = None, *, purpose: str = "ETREAT", page: str = "chart") -> int:
    return int(scene.client.get(f"/{page}/{pk or scene.patient}/", {"purpose": purpose}).status_code)


def get_last_access_event() -> tuple[str, str, str, dict[str, Any]]:
    event = AuditEvent.objects.filter(action__startswith="access.").order_by("-id")[0]
    return event.action, event.reason, event.purpose, json.loads(event.detail)


def test_emergency_grants_access_to_its_resource_and_is_named_in_each_event(scene: SimpleNamespace) -> None:
    assert (get_status(scene), get_last_access_event()) == (403, ("access.denied", "permission_missing", "ETREAT", {}))
    row = opened(scene.user, f"Patient/{scene.patient}")
    detail = {"emergency": str(row.pk)}
    for purpose in ("ETREAT", "TREAT"):
        assert (get_status(scene, purpose=purpose), get_last_access_event()) == (
            200,
            ("access.granted", "", "ETREAT", detail),
        )
    assert (get_status(scene, purpose="HMARKT"), get_last_access_event()) == (
        403,
        ("access.denied", "purpose_not_declared", "HMARKT", detail),
    )
    assert (get_status(scene, scene.other), get_last_access_event()) == (
        403,
        ("access.denied", "permission_missing", "ETREAT", {}),
    )
    assert RAN == ["chart", "chart"]


def test_access_by_permission_does_not_name_the_emergency(scene: SimpleNamespace) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    HELD.add((scene.user.pk, scene.patient))
    assert (get_status(scene), get_last_access_event()) == (200, ("access.granted", "", "ETREAT", {}))


def test_emergency_purpose_is_accepted_in_addition_to_the_views(scene: SimpleNamespace) -> None:
    policy = AccessPolicy(permission=PERMISSION, purposes=frozenset({"TREAT"}))
    row = opened(scene.user, "Patient/7", purpose="BTG")
    arguments: dict[str, Any] = {"resource": "Patient/7", "find_object": None, "now": clock.now()}
    assert authorize(actor(scene.user), policy, purpose="BTG", **arguments) is None
    assert get_last_access_event() == ("access.granted", "", "BTG", {"emergency": str(row.pk)})
    assert authorize(actor(scene.user), policy, purpose="ETREAT", **arguments) == "purpose_not_declared"


def test_emergency_for_everything_needs_a_separate_permission(scene: SimpleNamespace) -> None:
    with pytest.raises(EmergencyRefused):
        opened(scene.user, ALL_RESOURCES)
    assert list_events()[-1][:2] == ("emergency.refused", "permission_missing")
    scene.user = allow(scene.user, EVERYWHERE)
    row = opened(scene.user, ALL_RESOURCES)
    assert (get_status(scene), get_status(scene, scene.other)) == (200, 200)
    own = opened(scene.user, f"Patient/{scene.other}")
    assert (get_status(scene), get_last_access_event()[3]) == (200, {"emergency": str(row.pk)})
    assert (get_status(scene, scene.other), get_last_access_event()[3]) == (200, {"emergency": str(own.pk)})


def test_emergency_applies_only_to_its_person_and_permissions(scene: SimpleNamespace) -> None:
    opened(create_user(OPEN), f"Patient/{scene.patient}")
    opened(scene.user, f"Patient/{scene.patient}", permissions=["portal.view_letter"])
    assert (get_status(scene), get_last_access_event()[1]) == (403, "permission_missing")
    opened(scene.user, f"Patient/{scene.patient}")
    assert get_status(scene) == 200


def test_missing_object_is_refused_in_an_emergency(scene: SimpleNamespace) -> None:
    opened(scene.user, "Patient/999999")
    assert (get_status(scene, 999999), get_last_access_event()[1]) == (403, "permission_missing")
    opened(scene.user, f"Patient/{scene.patient}")
    assert [get_status(scene, page=page) for page in ("missing", "not_found", "chart")] == [403, 403, 200]


def test_weak_sign_in_is_refused_in_an_emergency(scene: SimpleNamespace) -> None:
    opened(scene.user, "Patient/7")
    policy = wards.Chart.get_access_policy(acr=("strong",))
    arguments: dict[str, Any] = {"resource": "Patient/7", "purpose": "ETREAT", "find_object": None, "now": clock.now()}
    assert authorize(actor(scene.user, acr="weak"), policy, **arguments) == "acr_insufficient"
    assert list(get_last_access_event()[3]) == ["emergency"]
    assert authorize(actor(scene.user, acr="strong"), policy, **arguments) is None


def test_access_token_gets_no_emergency_access(scene: SimpleNamespace) -> None:
    """Otherwise its scopes would have no effect."""
    opened(scene.user, "Patient/7")
    policy = wards.Chart.get_access_policy()
    arguments: dict[str, Any] = {"resource": "Patient/7", "purpose": "ETREAT", "find_object": None, "now": clock.now()}
    assert authorize(actor(scene.user, session="", client_id="app"), policy, **arguments) == "permission_missing"
    assert authorize(actor(scene.user), policy, **arguments) is None


ENDS: dict[str, Callable[[Any, EmergencyAccess, Any], Any]] = {
    "closed opening_actor the person": lambda user, row, settings: lifecycle.close_emergencies(
        [row.pk], CloseReason.CLOSED, origin=actor(user).origin, now=clock.now(), user_id=user.pk
    ),
    "closed opening_actor an administrator": lambda user, row, settings: lifecycle.close_emergencies(
        [row.pk], CloseReason.ADMINISTRATOR, origin=actor(create_user()).origin, now=clock.now()
    ),
    "expired": lambda user, row, settings: None,
    "permission to open removed": lambda user, row, settings: forbid(user),
    "permission removed from the settings": lambda user, row, settings: declare(
        settings, permissions={"portal.other": "Other"}
    ),
    "EMERGENCY removed from the settings": lambda user, row, settings: declare_none(settings),
}


def declare_none(settings: Any) -> None:
    settings.PHI_OIDC = {name: value for name, value in settings.PHI_OIDC.items() if name != "EMERGENCY"}


@pytest.mark.parametrize("end", ENDS)
def test_end_takes_effect_for_the_next_request(end: str, scene: SimpleNamespace, settings: Any) -> None:
    row = opened(scene.user, f"Patient/{scene.patient}", duration=timedelta(minutes=10))
    assert get_status(scene) == 200
    ENDS[end](scene.user, row, settings)
    is_expiry = end == "expired"
    with clock.override_clock(lambda: row.expires_at) if is_expiry else nullcontext():
        assert get_status(scene) == 403
    with clock.override_clock(lambda: row.expires_at - timedelta(microseconds=1)) if is_expiry else nullcontext():
        assert get_status(scene) == (200 if is_expiry else 403)


def test_other_persons_cannot_close_an_emergency(scene: SimpleNamespace) -> None:
    row = opened(scene.user, f"Patient/{scene.patient}")
    arguments: dict[str, Any] = {"origin": actor(scene.user).origin, "now": clock.now()}
    assert lifecycle.close_emergencies([row.pk], CloseReason.CLOSED, user_id=create_user().pk, **arguments) == ()
    assert get_status(scene) == 200
    assert lifecycle.close_emergencies([row.pk], CloseReason.CLOSED, user_id=scene.user.pk, **arguments) == (row.pk,)
    assert lifecycle.close_emergencies([row.pk], CloseReason.ADMINISTRATOR, **arguments) == ()
    assert [(action, reason) for action, reason, _ in list_events()] == [
        ("emergency.opened", ""),
        ("emergency.closed", "closed"),
    ]


def test_concurrent_closes_record_one_event(scene: SimpleNamespace) -> None:
    row = opened(scene.user, f"Patient/{scene.patient}")
    barrier, closed = threading.Barrier(6), []

    def close() -> None:
        try:
            connections["default"].ensure_connection()
            barrier.wait()
            closed.extend(
                lifecycle.close_emergencies(
                    [row.pk], CloseReason.CLOSED, origin=actor(scene.user).origin, now=clock.now()
                )
            )
        finally:
            connections.close_all()

    threads = [threading.Thread(target=close) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drain_outbox()
    assert (closed, [event[0] for event in list_events()].count("emergency.closed")) == ([row.pk], 1)


def test_open_event_contains_permissions_and_end_but_no_reason(scene: SimpleNamespace) -> None:
    now = timezone.now().replace(microsecond=0)
    row = opened(scene.user, "Patient/7", now=now, duration=timedelta(minutes=5))
    (event,) = AuditEvent.objects.filter(action="emergency.opened")
    assert (event.actor, event.resource, event.purpose) == (str(scene.user.pk), "Patient/7", "ETREAT")
    assert json.loads(event.detail) == {
        "emergency": str(row.pk),
        "everything": False,
        "permissions": [PERMISSION],
        "until": (now + timedelta(minutes=5)).isoformat(),
    }
    assert list_events("alert.") == [("alert.raised", "", {"emergency": str(row.pk), "rule": "emergency_opened"})]
    assert not any(REASON in str(vars(event)) for event in AuditEvent.objects.all())
    with connections["default"].cursor() as cursor:
        cursor.execute(f"SELECT * FROM {EmergencyAccess._meta.db_table}")
        assert REASON not in str(cursor.fetchall())
    field: Any = EmergencyAccess._meta.get_field("reason")
    assert field.decrypt(EmergencyAccess.objects.get()) == REASON


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name for a resource": ({"resource": "Anna Svensson"}, "resource_invalid"),
    "no permission": ({"permissions": []}, "permission_not_offered"),
    "a permission that is not offered": ({"permissions": [PERMISSION, "auth.delete_user"]}, "permission_not_offered"),
    "a purpose outside emergencies": ({"purpose": "TREAT"}, "purpose_not_declared"),
    "no reason": ({"reason": " \n"}, "reason_missing"),
    "an invisible reason": ({"reason": "\u200b\u2060\u00ad\ufe0f\u3164\u2800"}, "reason_missing"),
    "a reason of dots": ({"reason": "..."}, "reason_missing"),
    "no duration": ({"duration": timedelta(0)}, "duration_invalid"),
    "a duration that is too long": ({"duration": HOUR + SECOND}, "duration_invalid"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_opening_is_refused_and_recorded(name: str, scene: SimpleNamespace) -> None:
    changed, reason = REFUSED[name]
    with pytest.raises(EmergencyRefused) as refused:
        opened(scene.user, **{"resource": "Patient/7", **changed})
    assert (refused.value.reason, list_events()) == (reason, [("emergency.refused", reason, {})])
    assert not EmergencyAccess.objects.exists()
    opened(scene.user, "Patient/7")


@pytest.mark.parametrize("actor_kind", ["anonymous", "without a session", "without the permission", "deactivated"])
def test_opening_without_authorization_is_refused_and_recorded(actor_kind: str, scene: SimpleNamespace) -> None:
    user = scene.user
    opening_actor = actor(user, session="" if actor_kind == "without a session" else "a-session")
    if actor_kind == "anonymous":
        opening_actor = actor(AnonymousUser(), session="")
    elif actor_kind == "without the permission":
        opening_actor = actor(forbid(user))
    elif actor_kind == "deactivated":
        user.is_active = False
    arguments: dict[str, Any] = {"permissions": [PERMISSION], "purpose": "ETREAT", "reason": REASON, "now": clock.now()}
    with pytest.raises(EmergencyRefused) as refused:
        open_emergency(opening_actor, resource="Patient/7", duration=HOUR, **arguments)
    expected = "session_missing" if actor_kind in {"anonymous", "without a session"} else "permission_missing"
    assert (refused.value.reason, list_events()[0][:2]) == (expected, ("emergency.refused", expected))


def test_refusal_without_the_audit_log_still_refuses(scene: SimpleNamespace) -> None:
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        opened(scene.user, "Patient/7", reason="")
    assert not EmergencyAccess.objects.exists()


def test_task_records_expired_emergencies_once(scene: SimpleNamespace) -> None:
    row, still_open = opened(scene.user, "Patient/7", duration=SECOND), opened(scene.user, "Patient/8")
    with clock.override_clock(lambda: row.expires_at + SECOND):
        tend_emergencies()
        tend_emergencies()
    row.refresh_from_db()
    still_open.refresh_from_db()
    assert (row.closed_at, row.close_reason) == (row.expires_at, "expired")
    assert (still_open.closed_at, still_open.close_reason) == (None, "")
    assert list_events()[2:] == [("emergency.expired", "", {"emergency": str(row.pk)})]


# Review


def open_and_close(scene: SimpleNamespace) -> EmergencyAccess:
    row = opened(scene.user, "Patient/7")
    lifecycle.close_emergencies([row.pk], CloseReason.CLOSED, origin=actor(scene.user).origin, now=clock.now())
    return row


def review(row: EmergencyAccess, user: Any, note: str = "A note") -> EmergencyAccess:
    return review_emergency(row.pk, actor=actor(user), verdict=ReviewVerdict.JUSTIFIED, note=note, now=clock.now())


def test_review_by_another_person_happens_once(scene: SimpleNamespace) -> None:
    row, first, second = open_and_close(scene), create_user(REVIEW), create_user(REVIEW)
    review(row, first)
    with pytest.raises(EmergencyRefused, match="already_reviewed"):
        review(row, second)
    row.refresh_from_db()
    assert (row.reviewed_by, row.verdict) == (str(first.pk), "justified")
    field: Any = EmergencyAccess._meta.get_field("note")
    assert (field.decrypt(row), EmergencyAccess._meta.get_field("reason").decrypt(row)) == ("A note", REASON)  # type: ignore[attr-defined]
    assert list_events()[2:] == [
        ("emergency.reviewed", "", {"emergency": str(row.pk), "verdict": "justified"}),
        ("emergency.refused", "already_reviewed", {"emergency": str(row.pk)}),
    ]


def test_own_emergency_cannot_be_reviewed_by_any_path(scene: SimpleNamespace) -> None:
    row = open_and_close(scene)
    scene.user.is_superuser = True
    scene.user.save()
    with pytest.raises(EmergencyRefused, match="own_emergency"):
        review(row, get_user_model()._default_manager.get(pk=scene.user.pk))
    arguments = {"reviewed_at": clock.now(), "verdict": "justified"}
    with pytest.raises(IntegrityError):
        EmergencyAccess.objects.filter(pk=row.pk).update(reviewed_by=str(scene.user.pk), **arguments)
    EmergencyAccess.objects.filter(pk=row.pk).update(reviewed_by=str(create_user().pk), **arguments)


def test_review_needs_the_permission_and_an_ended_emergency(scene: SimpleNamespace) -> None:
    row, reviewer = opened(scene.user, "Patient/7"), create_user(REVIEW)
    with pytest.raises(EmergencyRefused, match="still_open"):
        review(row, reviewer)
    lifecycle.close_emergencies([row.pk], CloseReason.CLOSED, origin=actor(scene.user).origin, now=clock.now())
    with pytest.raises(EmergencyRefused, match="permission_missing"):
        review(row, create_user(OPEN))
    review(row, reviewer)


def test_concurrent_reviews_store_one(scene: SimpleNamespace) -> None:
    row, reviewers = open_and_close(scene), [create_user(REVIEW) for _ in range(5)]
    barrier, done = threading.Barrier(5), []

    def sign(user: Any) -> None:
        try:
            connections["default"].ensure_connection()
            barrier.wait()
            review(row, user)
            done.append(str(user.pk))
        except EmergencyRefused:
            pass
        finally:
            connections.close_all()

    threads = [threading.Thread(target=sign, args=[user]) for user in reviewers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert EmergencyAccess.objects.get().reviewed_by == done[0]
    assert len(done) == 1


def test_listed_events_are_those_of_the_emergency(scene: SimpleNamespace) -> None:
    row = opened(scene.user, f"Patient/{scene.patient}")
    opened(scene.user, f"Patient/{scene.other}")
    assert [get_status(scene), get_status(scene, scene.other), get_status(scene, purpose="HMARKT")] == [200, 200, 403]
    row.refresh_from_db()
    events = [(event.action, event.resource) for event in list_emergency_events(row)]
    resource = f"Patient/{scene.patient}"
    assert events[2:] == [("access.granted", resource), ("access.denied", resource)]
    assert sorted(events[:2]) == [("alert.raised", resource), ("emergency.opened", resource)]


# Mail


def test_mail_is_sent_once_and_names_no_patient(scene: SimpleNamespace, mail_server: SimpleNamespace) -> None:
    row = opened(scene.user, "Patient/mpi-4711")
    assert mail_server.mails == []
    tend_emergencies()
    tend_emergencies()
    (mail,) = mail_server.mails
    assert f"To: {OFFICER}" in mail
    assert str(row.pk) in mail
    assert "mpi-4711" not in mail
    assert REASON not in mail
    row.refresh_from_db()
    assert (row.alert_due_at, row.alerted_at is not None) == (row.expires_at + timedelta(days=3), True)


def test_overdue_review_is_mailed_once(scene: SimpleNamespace, mail_server: SimpleNamespace) -> None:
    reviewed, overdue = opened(scene.user, "Patient/mpi-4711"), opened(scene.user, "Patient/mpi-4712")
    tend_emergencies()
    mail_server.mails.clear()
    with clock.override_clock(lambda: overdue.expires_at + timedelta(days=3) - SECOND):
        review(reviewed, create_user(REVIEW))
        tend_emergencies()
    assert mail_server.mails == []
    with clock.override_clock(lambda: overdue.expires_at + timedelta(days=3)):
        tend_emergencies()
        tend_emergencies()
    (mail,) = mail_server.mails
    assert "Subject: The review of an emergency access is overdue" in mail
    assert (str(overdue.pk) in mail, "Emergency treatment" in mail, "mpi-4712" in mail) == (True, True, False)
    assert not EmergencyAccess.objects.exclude(alert_due_at=None).exists()


def test_mail_of_an_emergency_that_is_already_reviewed_is_sent_without_a_reminder(
    scene: SimpleNamespace, mail_server: SimpleNamespace
) -> None:
    row = open_and_close(scene)
    review(row, create_user(REVIEW))
    tend_emergencies()
    row.refresh_from_db()
    assert (len(mail_server.mails), row.alert_due_at) == (1, None)


def test_refused_mail_is_retried_until_it_is_accepted(
    scene: SimpleNamespace, mail_server: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    row = opened(scene.user, "Patient/7")
    due = row.opened_at
    mail_server.refuses = True
    for _ in range(2):
        assert notifications.send_due_alerts(mail_to=[OFFICER], now=due) == 0
        due += notifications.RETRY_DELAY
    mail_server.refuses = False
    assert notifications.send_due_alerts(mail_to=[OFFICER], now=due - SECOND) == 0
    assert "was not sent: SMTPRecipientsRefused" in caplog.text
    assert REASON not in caplog.text
    assert notifications.send_due_alerts(mail_to=[OFFICER], now=due) == 1
    assert len(mail_server.mails) == 1
    row.refresh_from_db()
    assert row.alerted_at == due


def test_exception_of_another_mail_backend_does_not_hold_up_other_mails(
    scene: SimpleNamespace, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [opened(scene.user, "Patient/7"), opened(scene.user, "Patient/8")]
    mail_by(settings, REFUSING_BACKEND)
    due = max(row.opened_at for row in rows)
    assert notifications.send_due_alerts(mail_to=["ada@example.org"], now=due) == 0
    assert (caplog.text.count("was not sent: MailAPIError"), "ada@" in caplog.text) == (2, False)
    assert notifications.send_due_alerts(mail_to=[OFFICER], now=due + notifications.RETRY_DELAY) == 2


def test_unavailable_mail_server_does_not_block_the_task(
    scene: SimpleNamespace, settings: Any, unused_tcp: int
) -> None:
    mail_by(settings, "smtp", host="127.0.0.1", port=unused_tcp)
    row = opened(scene.user, "Patient/7", duration=SECOND)
    with clock.override_clock(lambda: row.expires_at + SECOND):
        tend_emergencies()
    row.refresh_from_db()
    assert (row.close_reason, row.alerted_at, row.alert_due_at) == (
        "expired",
        None,
        row.expires_at + SECOND + notifications.RETRY_DELAY,
    )
    with pytest.raises(ConnectionRefusedError):
        smtplib.SMTP("127.0.0.1", unused_tcp)


def test_hanging_mail_server_delays_the_task_by_its_timeout_and_the_mail_is_sent_later(
    scene: SimpleNamespace, settings: Any, mail_server: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    row = opened(scene.user, "Patient/7")
    due = row.opened_at
    # Its backlog accepts connections, and nothing answers them. smtplib reports the timeout as a lost connection.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mail_by(settings, "smtp", host="127.0.0.1", port=silent.getsockname()[1], timeout=0.5)
        started_at = time.monotonic()
        assert notifications.send_due_alerts(mail_to=[OFFICER], now=due) == 0
        assert time.monotonic() - started_at < 5
    assert "was not sent: SMTPServerDisconnected" in caplog.text
    mail_by(settings, "smtp", host="127.0.0.1", port=mail_server.port, timeout=10)
    assert notifications.send_due_alerts(mail_to=[OFFICER], now=due + notifications.RETRY_DELAY) == 1
    assert len(mail_server.mails) == 1


def test_slow_mail_server_gets_the_mail_once(scene: SimpleNamespace, mail_server: SimpleNamespace) -> None:
    row = opened(scene.user, "Patient/7")
    mail_server.delay_seconds = 0.2
    started_at = time.monotonic()
    assert notifications.send_due_alerts(mail_to=[OFFICER], now=row.opened_at) == 1
    assert time.monotonic() - started_at > 0.2
    assert notifications.send_due_alerts(mail_to=[OFFICER], now=row.opened_at + notifications.RETRY_DELAY) == 0
    assert len(mail_server.mails) == 1


@pytest.fixture
def unused_tcp() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# Unavailable audit log


@pytest.fixture
def spool(settings: Any, tmp_path: Path) -> Path:
    declare(settings, tmp_path / "spool")
    return tmp_path / "spool"


def test_grant_without_the_audit_log_is_spooled_and_recorded_later(scene: SimpleNamespace, spool: Path) -> None:
    row = opened(scene.user, f"Patient/{scene.patient}")
    with audit_database_fails():
        assert [get_status(scene), get_status(scene, scene.other), get_status(scene, purpose="HMARKT")] == [
            200,
            503,
            503,
        ]
    assert (RAN, has_spooled_events(spool)) == (["chart"], True)
    assert AuditEvent.objects.filter(action__startswith="access.").count() == 0
    assert get_status(scene, scene.other) == 403
    assert not has_spooled_events(spool)
    events = AuditEvent.objects.filter(action__startswith="access.").order_by("id")
    assert [(event.action, event.resource) for event in events] == [
        ("access.granted", f"Patient/{scene.patient}"),
        ("access.denied", f"Patient/{scene.other}"),
    ]
    assert json.loads(events[0].detail) == {"emergency": str(row.pk)}
    assert [event.action for event in list_emergency_events(row)][2:] == ["access.granted"]


@pytest.mark.postgresql
def test_hanging_audit_log_does_not_block_emergency_access(scene: SimpleNamespace, spool: Path) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    with audit_database_hangs():
        started_at = time.monotonic()
        assert get_status(scene) == 200
        assert time.monotonic() - started_at < 5
    assert get_status(scene) == 200
    assert [event[0] for event in list_events("access.")] == ["access.granted"] * 2


def test_emergency_can_be_opened_without_the_audit_log(scene: SimpleNamespace, spool: Path) -> None:
    """Its events are committed with the row on `default`."""
    with audit_database_fails():
        opened(scene.user, f"Patient/{scene.patient}")
        assert (get_status(scene), AuditOutbox.objects.count()) == (200, 2)
    reset_cooldown()
    drain_outbox()
    assert get_status(scene) == 200
    actions = list(AuditEvent.objects.exclude(action="role.changed").values_list("action", flat=True))
    assert sorted(actions) == ["access.granted", "access.granted", "alert.raised", "emergency.opened"]


def test_access_by_permission_without_the_audit_log_needs_an_emergency(scene: SimpleNamespace, spool: Path) -> None:
    HELD.add((scene.user.pk, scene.patient))
    with audit_database_fails():
        assert get_status(scene) == 503
        opened(scene.user, f"Patient/{scene.patient}")
        assert get_status(scene) == 200
    assert get_status(scene) == 200
    assert [event[2].keys() for event in list_events("access.")] == [{"emergency"}, set()]


def test_missing_or_full_spool_refuses_access(scene: SimpleNamespace, spool: Path, settings: Any) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    line = b"x" * 1023 + b"\n"
    spool.write_bytes(line * (MAX_SPOOL_BYTES // len(line)))
    with audit_database_fails():
        assert (get_status(scene), RAN) == (503, [])
        spool.unlink()
        assert (get_status(scene), RAN) == (200, ["chart"])
        declare(settings)
        assert (get_status(scene), RAN) == (503, ["chart"])


def test_failed_spool_flush_does_not_fail_the_request(
    scene: SimpleNamespace, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    with audit_database_fails():
        assert get_status(scene) == 200
    content = spool.read_bytes()
    lock = spool.with_name("spool.lock")
    lock.mkdir()
    assert (get_status(scene), spool.read_bytes()) == (200, content)
    assert "The spool was not flushed: IsADirectoryError." in caplog.text
    lock.rmdir()
    assert (get_status(scene), has_spooled_events(spool)) == (200, False)


def test_open_emergency_costs_one_select_only_without_the_permission(scene: SimpleNamespace, spool: Path) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    get_status(scene)
    statements = []
    for has_permission in (False, True):
        HELD.update({(scene.user.pk, scene.patient)} if has_permission else ())
        with CaptureQueriesContext(connections["default"]) as queries:
            assert get_status(scene) == 200
        statements.append([query["sql"] for query in queries if EmergencyAccess._meta.db_table in query["sql"]])
    assert [len(group) for group in statements] == [1, 0]


def test_f8_openings_in_a_row_are_limited_until_a_review(scene: SimpleNamespace, settings: Any) -> None:
    declare(settings, max_unreviewed=3)
    start = clock.now()
    rows = []
    for number in range(3):
        rows.append(opened(scene.user, "Patient/7", now=start + number * HOUR))
    with pytest.raises(EmergencyRefused) as refusal:
        opened(scene.user, "Patient/7", now=start + 3 * HOUR)
    assert refusal.value.reason == "too_many_unreviewed"
    assert EmergencyAccess.objects.count() == 3
    assert list_events()[-1][:2] == ("emergency.refused", "too_many_unreviewed")
    assert list_events("alert.")[-1] == ("alert.raised", "", {"rule": "emergency_limit"})
    assert opened(allow(create_user(), OPEN), "Patient/7", now=start + 3 * HOUR), "another person"
    with clock.override_clock(lambda: start + 4 * HOUR):
        review(rows[0], create_user(REVIEW))
    assert opened(scene.user, "Patient/7", now=start + 4 * HOUR)
    with pytest.raises(EmergencyRefused):
        opened(scene.user, "Patient/7", now=start + 5 * HOUR)
    assert opened(scene.user, "Patient/7", now=start + 25 * HOUR), "a day later"


def test_f8_concurrent_openings_do_not_exceed_the_limit(scene: SimpleNamespace, settings: Any) -> None:
    declare(settings, max_unreviewed=2)
    barrier, results = threading.Barrier(6), list[str]()

    def open_one() -> None:
        try:
            connections["default"].ensure_connection()
            barrier.wait()
            results.append(str(opened(scene.user, "Patient/7").pk))
        except EmergencyRefused as refusal:
            results.append(refusal.reason)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=open_one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("too_many_unreviewed") == 4
    assert EmergencyAccess.objects.count() == 2
