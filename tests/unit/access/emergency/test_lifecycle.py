"""Emergency access: who opens it, what it lets in and how that is told, how it ends, and who reviews it."""

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
from django_phi_oidc.access.emergency import lifecycle, notifications
from django_phi_oidc.access.emergency.lifecycle import list_emergency_events, open_emergency, review_emergency
from django_phi_oidc.access.emergency.models import ALL_RESOURCES, CloseReason, EmergencyAccess, ReviewVerdict
from django_phi_oidc.access.emergency.tasks import tend_emergencies
from django_phi_oidc.access.policy import AccessPolicy
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.outbox import flush as drain_outbox
from django_phi_oidc.audit.outbox import reset_cooldown
from django_phi_oidc.audit.spool import MAX_SPOOL_BYTES, has_spooled_events
from django_phi_oidc.errors import AuditUnavailable, EmergencyRefused
from tests.support import guarded_views as wards
from tests.support.audit_outage import audit_database_fails, audit_database_hangs
from tests.support.emergency_access import OFFICER, REASON, actor, allow, declare, forbid, opened, told
from tests.support.guarded_views import ASKED, HELD, PERMISSION, RAN
from tests.support.mail_settings import mail_by
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
    for noted in (HELD, ASKED, RAN):
        noted.clear()
    yield
    HELD.clear()


@pytest.fixture
def scene(sign_in: Callable[[], SignedIn]) -> SimpleNamespace:  # noqa: F811 -- the fixture
    """Return a clinician who may open emergencies, and holds no permission on anybody."""
    users = get_user_model()._default_manager
    clinician = sign_in()
    patient, other = (users.create_user(username=name) for name in ("patient", "other"))
    user = allow(clinician.user, OPEN)
    return SimpleNamespace(user=user, client=clinician.client(), patient=patient.pk, other=other.pk)


def officer(*codenames: str) -> Any:
    return allow(get_user_model()._default_manager.create_user(username=uuid.uuid4().hex), *codenames)


def look(scene: SimpleNamespace, pk: int | None = None, *, purpose: str = "ETREAT", page: str = "chart") -> int:
    return int(scene.client.get(f"/{page}/{pk or scene.patient}/", {"purpose": purpose}).status_code)


def last() -> tuple[str, str, str, dict[str, Any]]:
    event = AuditEvent.objects.filter(action__startswith="access.").order_by("-id")[0]
    return event.action, event.reason, event.purpose, json.loads(event.detail)


def test_emergency_lets_in_to_its_resource_and_marks_each_event(scene: SimpleNamespace) -> None:
    assert (look(scene), last()) == (403, ("access.denied", "permission_missing", "ETREAT", {}))
    row = opened(scene.user, f"Patient/{scene.patient}")
    mark = {"emergency": str(row.pk)}
    for purpose in ("ETREAT", "TREAT"):
        assert (look(scene, purpose=purpose), last()) == (200, ("access.granted", "", "ETREAT", mark))
    assert (look(scene, purpose="HMARKT"), last()) == (403, ("access.denied", "purpose_not_declared", "HMARKT", mark))
    assert (look(scene, scene.other), last()) == (403, ("access.denied", "permission_missing", "ETREAT", {}))
    assert RAN == ["chart", "chart"]


def test_who_has_the_permission_needs_no_emergency_and_none_is_told(scene: SimpleNamespace) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    HELD.add((scene.user.pk, scene.patient))
    assert (look(scene), last()) == (200, ("access.granted", "", "ETREAT", {}))


def test_emergency_states_its_own_purpose_where_the_view_has_another(scene: SimpleNamespace) -> None:
    policy = AccessPolicy(permission=PERMISSION, purposes=frozenset({"TREAT"}))
    row = opened(scene.user, "Patient/7", purpose="BTG")
    given: dict[str, Any] = {"resource": "Patient/7", "find_object": None, "now": clock.now()}
    assert authorize(actor(scene.user), policy, purpose="BTG", **given) is None
    assert last() == ("access.granted", "", "BTG", {"emergency": str(row.pk)})
    assert authorize(actor(scene.user), policy, purpose="ETREAT", **given) == "purpose_not_declared"


def test_emergency_for_everything_is_a_permission_of_its_own(scene: SimpleNamespace) -> None:
    with pytest.raises(EmergencyRefused):
        opened(scene.user, ALL_RESOURCES)
    assert told()[-1][:2] == ("emergency.refused", "permission_missing")
    scene.user = allow(scene.user, EVERYWHERE)
    row = opened(scene.user, ALL_RESOURCES)
    assert (look(scene), look(scene, scene.other)) == (200, 200)
    own = opened(scene.user, f"Patient/{scene.other}")
    assert (look(scene), last()[3]) == (200, {"emergency": str(row.pk)})
    assert (look(scene, scene.other), last()[3]) == (200, {"emergency": str(own.pk)})


def test_emergency_is_of_one_person_and_of_the_permissions_that_were_taken(scene: SimpleNamespace) -> None:
    opened(officer(OPEN), f"Patient/{scene.patient}")
    opened(scene.user, f"Patient/{scene.patient}", permissions=["portal.view_letter"])
    assert (look(scene), last()[1]) == (403, "permission_missing")
    opened(scene.user, f"Patient/{scene.patient}")
    assert look(scene) == 200


def test_object_that_is_not_there_is_refused_in_an_emergency_too(scene: SimpleNamespace) -> None:
    opened(scene.user, "Patient/999999")
    assert (look(scene, 999999), last()[1]) == (403, "permission_missing")
    opened(scene.user, f"Patient/{scene.patient}")
    assert [look(scene, page=page) for page in ("nobody", "gone", "chart")] == [403, 403, 200]


def test_who_signed_in_too_weakly_is_refused_in_an_emergency_too(scene: SimpleNamespace) -> None:
    opened(scene.user, "Patient/7")
    policy = wards.Chart.get_access_policy(acr=("strong",))
    given: dict[str, Any] = {"resource": "Patient/7", "purpose": "ETREAT", "find_object": None, "now": clock.now()}
    assert authorize(actor(scene.user, acr="weak"), policy, **given) == "acr_insufficient"
    assert list(last()[3]) == ["emergency"]
    assert authorize(actor(scene.user, acr="strong"), policy, **given) is None


def test_access_token_has_no_part_in_an_emergency(scene: SimpleNamespace) -> None:
    """Its scopes would mean nothing."""
    opened(scene.user, "Patient/7")
    policy = wards.Chart.get_access_policy()
    given: dict[str, Any] = {"resource": "Patient/7", "purpose": "ETREAT", "find_object": None, "now": clock.now()}
    assert authorize(actor(scene.user, session="", client_id="app"), policy, **given) == "permission_missing"
    assert authorize(actor(scene.user), policy, **given) is None


ENDS: dict[str, Callable[[Any, EmergencyAccess, Any], Any]] = {
    "its person closed it": lambda user, row, settings: lifecycle.close_emergencies(
        [row.pk], CloseReason.CLOSED, origin=actor(user).origin, now=clock.now(), user_id=user.pk
    ),
    "an administrator closed it": lambda user, row, settings: lifecycle.close_emergencies(
        [row.pk], CloseReason.ADMINISTRATOR, origin=actor(officer()).origin, now=clock.now()
    ),
    "its time is over": lambda user, row, settings: None,
    "the person may open none any more": lambda user, row, settings: forbid(user),
    "the settings name the permission no more": lambda user, row, settings: declare(
        settings, permissions={"portal.other": "Other"}
    ),
    "the settings have no emergencies any more": lambda user, row, settings: declare_none(settings),
}


def declare_none(settings: Any) -> None:
    settings.PHI_OIDC = {name: value for name, value in settings.PHI_OIDC.items() if name != "EMERGENCY"}


@pytest.mark.parametrize("end", ENDS)
def test_end_holds_for_the_next_request(end: str, scene: SimpleNamespace, settings: Any) -> None:
    row = opened(scene.user, f"Patient/{scene.patient}", duration=timedelta(minutes=10))
    assert look(scene) == 200
    ENDS[end](scene.user, row, settings)
    is_time = end == "its time is over"
    with clock.override_clock(lambda: row.expires_at) if is_time else nullcontext():
        assert look(scene) == 403
    with clock.override_clock(lambda: row.expires_at - timedelta(microseconds=1)) if is_time else nullcontext():
        assert look(scene) == (200 if is_time else 403)


def test_nobody_closes_what_is_another_persons(scene: SimpleNamespace) -> None:
    row = opened(scene.user, f"Patient/{scene.patient}")
    given: dict[str, Any] = {"origin": actor(scene.user).origin, "now": clock.now()}
    assert lifecycle.close_emergencies([row.pk], CloseReason.CLOSED, user_id=officer().pk, **given) == ()
    assert look(scene) == 200
    assert lifecycle.close_emergencies([row.pk], CloseReason.CLOSED, user_id=scene.user.pk, **given) == (row.pk,)
    assert lifecycle.close_emergencies([row.pk], CloseReason.ADMINISTRATOR, **given) == ()
    assert [(action, reason) for action, reason, _ in told()] == [
        ("emergency.opened", ""),
        ("emergency.closed", "closed"),
    ]


def test_many_who_close_it_at_once_leave_one_event(scene: SimpleNamespace) -> None:
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
    assert (closed, [each[0] for each in told()].count("emergency.closed")) == ([row.pk], 1)


def test_opening_tells_what_was_taken_until_when_and_never_why(scene: SimpleNamespace) -> None:
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
    assert told("alert.") == [("alert.raised", "", {"emergency": str(row.pk), "rule": "emergency_opened"})]
    assert not any(REASON in str(vars(each)) for each in AuditEvent.objects.all())
    with connections["default"].cursor() as cursor:
        cursor.execute(f"SELECT * FROM {EmergencyAccess._meta.db_table}")
        assert REASON not in str(cursor.fetchall())
    field: Any = EmergencyAccess._meta.get_field("reason")
    assert field.decrypt(EmergencyAccess.objects.get()) == REASON


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name for a resource": ({"resource": "Anna Svensson"}, "resource_invalid"),
    "no permission at all": ({"permissions": []}, "permission_not_offered"),
    "a permission that is not offered": ({"permissions": [PERMISSION, "auth.delete_user"]}, "permission_not_offered"),
    "a purpose of every day": ({"purpose": "TREAT"}, "purpose_not_declared"),
    "no reason": ({"reason": " \n"}, "reason_missing"),
    "no time": ({"duration": timedelta(0)}, "duration_invalid"),
    "too much time": ({"duration": HOUR + SECOND}, "duration_invalid"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_opening_with_one_thing_wrong_is_refused_and_told(name: str, scene: SimpleNamespace) -> None:
    changed, reason = REFUSED[name]
    with pytest.raises(EmergencyRefused) as refused:
        opened(scene.user, **{"resource": "Patient/7", **changed})
    assert (refused.value.reason, told()) == (reason, [("emergency.refused", reason, {})])
    assert not EmergencyAccess.objects.exists()
    opened(scene.user, "Patient/7")


@pytest.mark.parametrize("who", ["nobody", "without a session", "without the permission", "deactivated"])
def test_opening_by_whoever_may_not_is_refused_and_told(who: str, scene: SimpleNamespace) -> None:
    user = scene.user
    by = actor(user, session="" if who == "without a session" else "a-session")
    if who == "nobody":
        by = actor(AnonymousUser(), session="")
    elif who == "without the permission":
        by = actor(forbid(user))
    elif who == "deactivated":
        user.is_active = False
    given: dict[str, Any] = {"permissions": [PERMISSION], "purpose": "ETREAT", "reason": REASON, "now": clock.now()}
    with pytest.raises(EmergencyRefused) as refused:
        open_emergency(by, resource="Patient/7", duration=HOUR, **given)
    wanted = "session_missing" if who in {"nobody", "without a session"} else "permission_missing"
    assert (refused.value.reason, told()[0][:2]) == (wanted, ("emergency.refused", wanted))


def test_refusal_that_can_t_be_told_is_a_refusal(scene: SimpleNamespace) -> None:
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        opened(scene.user, "Patient/7", reason="")
    assert not EmergencyAccess.objects.exists()


def test_beat_notes_what_is_over_once_and_only_that(scene: SimpleNamespace) -> None:
    row, lasting = opened(scene.user, "Patient/7", duration=SECOND), opened(scene.user, "Patient/8")
    with clock.override_clock(lambda: row.expires_at + SECOND):
        tend_emergencies()
        tend_emergencies()
    row.refresh_from_db()
    lasting.refresh_from_db()
    assert (row.closed_at, row.close_reason) == (row.expires_at, "expired")
    assert (lasting.closed_at, lasting.close_reason) == (None, "")
    assert told()[2:] == [("emergency.expired", "", {"emergency": str(row.pk)})]


# The review.


def over(scene: SimpleNamespace) -> EmergencyAccess:
    row = opened(scene.user, "Patient/7")
    lifecycle.close_emergencies([row.pk], CloseReason.CLOSED, origin=actor(scene.user).origin, now=clock.now())
    return row


def signed(row: EmergencyAccess, user: Any, note: str = "A note") -> EmergencyAccess:
    return review_emergency(row.pk, actor=actor(user), verdict=ReviewVerdict.JUSTIFIED, note=note, now=clock.now())


def test_another_person_reviews_it_once(scene: SimpleNamespace) -> None:
    row, first, second = over(scene), officer(REVIEW), officer(REVIEW)
    signed(row, first)
    with pytest.raises(EmergencyRefused, match="already_reviewed"):
        signed(row, second)
    row.refresh_from_db()
    assert (row.reviewed_by, row.verdict) == (str(first.pk), "justified")
    field: Any = EmergencyAccess._meta.get_field("note")
    assert (field.decrypt(row), EmergencyAccess._meta.get_field("reason").decrypt(row)) == ("A note", REASON)  # type: ignore[attr-defined]
    assert told()[2:] == [
        ("emergency.reviewed", "", {"emergency": str(row.pk), "verdict": "justified"}),
        ("emergency.refused", "already_reviewed", {"emergency": str(row.pk)}),
    ]


def test_who_opened_it_does_not_review_it_by_any_path(scene: SimpleNamespace) -> None:
    row = over(scene)
    scene.user.is_superuser = True
    scene.user.save()
    with pytest.raises(EmergencyRefused, match="own_emergency"):
        signed(row, get_user_model()._default_manager.get(pk=scene.user.pk))
    given = {"reviewed_at": clock.now(), "verdict": "justified"}
    with pytest.raises(IntegrityError):
        EmergencyAccess.objects.filter(pk=row.pk).update(reviewed_by=str(scene.user.pk), **given)
    EmergencyAccess.objects.filter(pk=row.pk).update(reviewed_by=str(officer().pk), **given)


def test_review_needs_a_permission_and_an_end(scene: SimpleNamespace) -> None:
    row, reviewer = opened(scene.user, "Patient/7"), officer(REVIEW)
    with pytest.raises(EmergencyRefused, match="still_open"):
        signed(row, reviewer)
    lifecycle.close_emergencies([row.pk], CloseReason.CLOSED, origin=actor(scene.user).origin, now=clock.now())
    with pytest.raises(EmergencyRefused, match="permission_missing"):
        signed(row, officer(OPEN))
    signed(row, reviewer)


def test_review_of_many_at_once_is_of_one(scene: SimpleNamespace) -> None:
    row, reviewers = over(scene), [officer(REVIEW) for _ in range(5)]
    barrier, done = threading.Barrier(5), []

    def sign(user: Any) -> None:
        try:
            connections["default"].ensure_connection()
            barrier.wait()
            signed(row, user)
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


def test_acts_under_it_are_all_and_only_its_own(scene: SimpleNamespace) -> None:
    row = opened(scene.user, f"Patient/{scene.patient}")
    opened(scene.user, f"Patient/{scene.other}")
    assert [look(scene), look(scene, scene.other), look(scene, purpose="HMARKT")] == [200, 200, 403]
    row.refresh_from_db()
    acts = [(event.action, event.resource) for event in list_emergency_events(row)]
    its = f"Patient/{scene.patient}"
    assert acts[2:] == [("access.granted", its), ("access.denied", its)]
    assert sorted(acts[:2]) == [("alert.raised", its), ("emergency.opened", its)]


# The mail.


@pytest.fixture
def mail_server(settings: Any) -> Iterator[SimpleNamespace]:
    """Yield a mail server on a real socket, which takes mails unless it is told to refuse."""
    server = SimpleNamespace(mails=[], refuses=False)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rwb") as file:
                _talk(file, server)

    thread = threading.Thread(target=serve)
    thread.start()
    host, server.port = listener.getsockname()
    mail_by(settings, "smtp", host=host, port=server.port, timeout=10)
    yield server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def _talk(file: Any, server: SimpleNamespace) -> None:
    """Spec: RFC 5321, as far as smtplib asks."""

    def say(text: str) -> None:
        file.write(f"{text}\r\n".encode())
        file.flush()

    say("220 here")
    while line := file.readline():
        command = line.decode().strip().upper()
        if command == "DATA":
            say("354 go on")
            body = b""
            while (part := file.readline()) not in {b".\r\n", b""}:
                body += part
            server.mails.append(body.decode())
            say("250 taken")
        elif command.startswith("RCPT") and server.refuses:
            say("451 later")
        elif command == "QUIT":
            say("221 bye")
            return
        else:
            say("250 ok")


def test_officer_is_told_by_the_next_beat_once_and_of_no_patient(
    scene: SimpleNamespace, mail_server: SimpleNamespace
) -> None:
    row = opened(scene.user, "Patient/4711")
    assert mail_server.mails == []
    tend_emergencies()
    tend_emergencies()
    (mail,) = mail_server.mails
    assert f"To: {OFFICER}" in mail
    assert str(row.pk) in mail
    assert "4711" not in mail
    assert REASON not in mail
    row.refresh_from_db()
    assert (row.alert_due_at, row.alerted_at is not None) == (None, True)


def test_mail_that_was_not_taken_is_tried_again_until_it_is(
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


def test_mail_server_that_is_away_holds_up_nothing(scene: SimpleNamespace, settings: Any, unused_tcp: int) -> None:
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


@pytest.fixture
def unused_tcp() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# The trail is away.


@pytest.fixture
def spool(settings: Any, tmp_path: Path) -> Path:
    declare(settings, tmp_path / "spool")
    return tmp_path / "spool"


def test_permit_while_the_trail_is_away_goes_by_the_spool_into_the_trail(scene: SimpleNamespace, spool: Path) -> None:
    row = opened(scene.user, f"Patient/{scene.patient}")
    with audit_database_fails():
        assert [look(scene), look(scene, scene.other), look(scene, purpose="HMARKT")] == [200, 503, 503]
    assert (RAN, has_spooled_events(spool)) == (["chart"], True)
    assert AuditEvent.objects.filter(action__startswith="access.").count() == 0
    assert look(scene, scene.other) == 403
    assert not has_spooled_events(spool)
    events = AuditEvent.objects.filter(action__startswith="access.").order_by("id")
    assert [(each.action, each.resource) for each in events] == [
        ("access.granted", f"Patient/{scene.patient}"),
        ("access.denied", f"Patient/{scene.other}"),
    ]
    assert json.loads(events[0].detail) == {"emergency": str(row.pk)}
    assert [event.action for event in list_emergency_events(row)][2:] == ["access.granted"]


@pytest.mark.postgresql
def test_trail_that_hangs_holds_up_no_look_in_an_emergency(scene: SimpleNamespace, spool: Path) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    with audit_database_hangs():
        began = time.monotonic()
        assert look(scene) == 200
        assert time.monotonic() - began < 5
    assert look(scene) == 200
    assert [each[0] for each in told("access.")] == ["access.granted"] * 2


def test_emergency_is_opened_while_the_trail_is_away(scene: SimpleNamespace, spool: Path) -> None:
    """Its events are committed with the row, beside the trail."""
    with audit_database_fails():
        opened(scene.user, f"Patient/{scene.patient}")
        assert (look(scene), AuditOutbox.objects.count()) == (200, 2)
    reset_cooldown()
    drain_outbox()
    assert look(scene) == 200
    actions = list(AuditEvent.objects.order_by("id").values_list("action", flat=True))
    assert sorted(actions) == ["access.granted", "access.granted", "alert.raised", "emergency.opened"]


def test_who_has_the_permission_goes_on_in_an_emergency_alone(scene: SimpleNamespace, spool: Path) -> None:
    HELD.add((scene.user.pk, scene.patient))
    with audit_database_fails():
        assert look(scene) == 503
        opened(scene.user, f"Patient/{scene.patient}")
        assert look(scene) == 200
    assert look(scene) == 200
    assert [each[2].keys() for each in told("access.")] == [{"emergency"}, set()]


def test_without_a_spool_or_with_a_full_one_nobody_is_let_in(
    scene: SimpleNamespace, spool: Path, settings: Any
) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    line = b"x" * 1023 + b"\n"
    spool.write_bytes(line * (MAX_SPOOL_BYTES // len(line)))
    with audit_database_fails():
        assert (look(scene), RAN) == (503, [])
        spool.unlink()
        assert (look(scene), RAN) == (200, ["chart"])
        declare(settings)
        assert (look(scene), RAN) == (503, ["chart"])


def test_spool_that_can_t_be_drained_lets_the_request_go_on(
    scene: SimpleNamespace, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    with audit_database_fails():
        assert look(scene) == 200
    content = spool.read_bytes()
    lock = spool.with_name("spool.lock")
    lock.mkdir()
    assert (look(scene), spool.read_bytes()) == (200, content)
    assert "The spool was not flushed: IsADirectoryError." in caplog.text
    lock.rmdir()
    assert (look(scene), has_spooled_events(spool)) == (200, False)


def test_open_emergency_costs_a_select_where_the_permission_is_missing_and_nothing_else(
    scene: SimpleNamespace, spool: Path
) -> None:
    opened(scene.user, f"Patient/{scene.patient}")
    look(scene)
    asked = []
    for held in (False, True):
        HELD.update({(scene.user.pk, scene.patient)} if held else ())
        with CaptureQueriesContext(connections["default"]) as queries:
            assert look(scene) == 200
        asked.append([each["sql"] for each in queries if EmergencyAccess._meta.db_table in each["sql"]])
    assert [len(each) for each in asked] == [1, 0]
