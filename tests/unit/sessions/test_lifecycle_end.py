import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connection, connections, transaction
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.key_rotation.encryption_keys import list_encrypted_columns, reencrypt
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import CiphertextInvalid, KeyRingError
from django_phi_oidc.sessions.digests import compute_token_digest
from django_phi_oidc.sessions.lifecycle import EndedSession, end_session, end_sessions
from django_phi_oidc.sessions.models import (
    REVOCATION_LEASE,
    EndReason,
    OIDCSession,
    PendingRevocation,
    RevocationStatus,
)
from django_phi_oidc.sessions.tasks import sweep_revocations
from django_phi_oidc.sessions.token_revocation import is_revoked
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import (
    ACCESS_TOKEN,
    NOW,
    REFRESH_TOKEN,
    ScriptedOP,
    SignedIn,
    django_session_exists,
    events,
    id_token,
    waiting,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

ORIGIN = Origin(actor="7", session="another session", client_ip="192.0.2.1", request_id="r")


def end(signed_in: SignedIn, reason: EndReason = EndReason.SESSION_LOST) -> EndedSession | None:
    return end_session(signed_in.session.pk, reason, origin=ORIGIN, now=NOW)


@contextmanager
def audit_table_away() -> Iterator[None]:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("ALTER TABLE phi_oidc_audit_auditevent RENAME TO away")
    try:
        yield
    finally:
        with connections["phi_audit"].cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO phi_oidc_audit_auditevent")


@pytest.mark.parametrize(("reason", "has_hint"), [(EndReason.LOGOUT, True), (EndReason.SESSION_LOST, False)])
def test_end_session_leaves_only_the_tokens_to_revoke(
    sign_in: Callable[..., SignedIn], reason: EndReason, has_hint: bool
) -> None:
    signed_in = sign_in()
    ended = end(signed_in, reason)
    assert ended is not None
    row = OIDCSession.objects.get()
    assert (row.ended_at, row.end_reason) == (NOW, reason)
    assert (row.access_token, row.refresh_token, row.id_token, row.session_key) == (None, None, None, None)
    assert row.access_token_digest is None
    assert (ended.id_token == id_token(), bool(ended.id_token_claims)) == (has_hint, has_hint)
    queued = [PendingRevocation.objects.get(pk=pk) for pk in ended.revocation_ids]
    assert [(item.token_type_hint, item.decrypt_token()) for item in queued] == [
        ("refresh_token", REFRESH_TOKEN),
        ("access_token", ACCESS_TOKEN),
    ]
    assert {(item.provider, item.session, item.status, item.due_at) for item in queued} == {
        ("default", signed_in.session.pk, "pending", NOW)
    }
    assert [item.token_expires_at for item in queued] == [None, signed_in.session.access_token_expires_at]
    assert signed_in.session.access_token_expires_at is not None
    assert not django_session_exists(signed_in.django_key)


def test_end_session_erases_only_the_claims_of_the_session(sign_in: Callable[..., SignedIn]) -> None:
    mine, other = sign_in(), sign_in()
    end(mine)
    left = StoredClaim.objects.values_list("subject", "name")
    assert set(left) == {(mine.subject.pk, "address"), (other.subject.pk, "address"), (other.subject.pk, "birthdate")}


def test_end_session_leaves_another_session_alone(sign_in: Callable[..., SignedIn]) -> None:
    mine, other = sign_in(), sign_in()
    end(mine)
    row = OIDCSession.objects.get(pk=other.session.pk)
    assert row.ended_at is None
    assert row.access_token is not None
    assert django_session_exists(other.django_key)


def test_end_session_records_the_session_and_the_subject(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    end(signed_in, EndReason.REPLACED)
    (event,) = events(Action.SESSION_ENDED)
    assert (event.reason, event.detail, event.provider) == ("replaced", '{"tokens":2}', "default")
    assert (event.session, event.subject) == (str(signed_in.session.pk), str(signed_in.subject.uuid))
    assert (event.actor, event.client_ip, event.request_id) == ("7", "192.0.2.1", "r")
    assert events(Action.LOGOUT_COMPLETED) == []


def test_end_session_by_the_user_completes_the_logout(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    end(signed_in, EndReason.LOGOUT)
    (event,) = events(Action.LOGOUT_COMPLETED)
    assert event.session == str(signed_in.session.pk)
    assert [item.reason for item in events(Action.SESSION_ENDED)] == ["logout"]


def test_end_session_a_second_time_does_nothing(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    assert end(signed_in, EndReason.LOGOUT) is not None
    assert end(signed_in, EndReason.DJANGO_LOGOUT) is None
    assert OIDCSession.objects.get().end_reason == "logout"
    assert PendingRevocation.objects.count() == 2
    assert len(events(Action.SESSION_ENDED)) == 1


@pytest.mark.parametrize("is_leased", [False, True])
def test_new_revocations_are_left_to_the_caller_that_leases_them(
    sign_in: Callable[..., SignedIn], *, is_leased: bool
) -> None:
    pks = [sign_in().session.pk for _ in range(2)]
    for ended in end_sessions(pks, EndReason.LOGOUT, origin=ORIGIN, now=NOW, lease_revocations=is_leased):
        assert len(ended.revocation_ids) == 2
        assert [row.pk for row in ended.leased_revocations] == (list(ended.revocation_ids) if is_leased else [])
    due = PendingRevocation.objects.due
    assert due(NOW).count() == (0 if is_leased else 4)
    # A process that is killed before its request keeps other workers from it until the lease ends.
    assert due(NOW + REVOCATION_LEASE).count() == 4


def test_end_session_without_refresh_token_queues_the_access_token(sign_in: Callable[..., SignedIn]) -> None:
    ended = end(sign_in(refresh_token=""))
    assert ended is not None
    assert [PendingRevocation.objects.get(pk=pk).token_type_hint for pk in ended.revocation_ids] == ["access_token"]


def test_end_session_of_a_deleted_user_still_revokes(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    OIDCSession.objects.update(user=None, subject=None)
    ended = end(signed_in)
    assert ended is not None
    assert len(ended.revocation_ids) == 2
    assert events(Action.SESSION_ENDED)[0].subject == ""


def test_end_session_in_a_transaction_that_rolls_back_changes_nothing(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    with transaction.atomic():
        end(signed_in)
        transaction.set_rollback(True)
    assert OIDCSession.objects.get().ended_at is None
    assert django_session_exists(signed_in.django_key)
    assert (PendingRevocation.objects.count(), waiting(), events(Action.SESSION_ENDED)) == (0, 0, [])
    assert StoredClaim.objects.count() == 2


def test_end_session_without_the_audit_database_delivers_its_event_later(
    sign_in: Callable[..., SignedIn],
) -> None:
    signed_in = sign_in()
    with audit_table_away():
        ended = end(signed_in, EndReason.LOGOUT)
    assert ended is not None
    assert OIDCSession.objects.get().ended_at == NOW
    assert not django_session_exists(signed_in.django_key)
    assert not StoredClaim.objects.filter(name="birthdate").exists()
    assert PendingRevocation.objects.count() == 2
    assert (events(Action.SESSION_ENDED), waiting()) == ([], 3)
    assert flush() == 3
    assert [event.reason for event in events(Action.SESSION_ENDED)] == ["logout"]
    assert waiting() == 0


def fail() -> list[str]:
    raise ConnectionError("the key service is sealed")


def test_tokens_are_moved_as_ciphertexts_and_revoked_after_a_rotation_of_their_key(
    sign_in: Callable[..., SignedIn], op: ScriptedOP, settings: Any
) -> None:
    before = OIDCSession.objects.get(pk=sign_in().session.pk)
    end_sessions([before.pk], EndReason.ADMINISTRATOR, origin=ORIGIN, now=NOW)
    moved = {row.token_type_hint: row for row in PendingRevocation.objects.all()}
    assert {hint: row.session_token.ciphertext for hint, row in moved.items()} == {
        hint: getattr(before, hint).ciphertext for hint in ("refresh_token", "access_token")
    }
    assert moved["access_token"].token_digest == compute_token_digest(ACCESS_TOKEN)
    old, new = settings.PHI_OIDC["KEYS"]["encryption"], keyring.generate_key()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [new, *old]})
    keys = keyring.get_keys("encryption")
    columns = [column for column in list_encrypted_columns() if column.field.model is PendingRevocation]
    assert sum(reencrypt(column, keys=keys).reencrypted for column in columns) == 2
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [new]})
    with clock.override_clock(lambda: NOW):
        sweep_revocations()
    assert sorted(request["token"] for request in op.asked) == sorted([ACCESS_TOKEN, REFRESH_TOKEN])
    rows = PendingRevocation.objects.values_list("status", "token", "session_token")
    assert set(rows) == {(RevocationStatus.DONE, None, None)}


MISSING_KEYS = {"callable fails": fail, "empty list": [], "other keys": [keyring.generate_key()]}


@pytest.mark.parametrize("source", MISSING_KEYS.values(), ids=MISSING_KEYS)
def test_a1_end_session_without_its_key_queues_the_ciphertexts_and_raises_an_alert(
    sign_in: Callable[..., SignedIn], settings: Any, source: Any
) -> None:
    signed_in = sign_in()
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"encryption": source})
    ended = end(signed_in)
    assert ended is not None
    row = OIDCSession.objects.get()
    assert row.ended_at == NOW
    assert (row.access_token, row.refresh_token, row.id_token) == (None, None, None)
    assert not StoredClaim.objects.filter(name="birthdate").exists()
    assert [event.detail for event in events(Action.SESSION_ENDED)] == ['{"tokens":2}']
    assert events(Action.TOKEN_REVOCATION_FAILED) == []
    (alert,) = events(Action.ALERT_RAISED)
    assert (alert.reason, alert.detail) == ("key_missing", '{"count":1,"rule":"encryption_key_missing"}')
    queued = [PendingRevocation.objects.get(pk=pk) for pk in ended.revocation_ids]
    with pytest.raises(KeyRingError) as missing:
        queued[0].decrypt_token()
    assert missing.value.is_key_missing
    settings.PHI_OIDC = with_keys
    assert [(item.token_type_hint, item.decrypt_token()) for item in queued] == [
        ("refresh_token", REFRESH_TOKEN),
        ("access_token", ACCESS_TOKEN),
    ]


def test_a1_end_of_many_sessions_reads_the_keys_once(sign_in: Callable[..., SignedIn], settings: Any) -> None:
    ids = [sign_in().session.pk for _ in range(5)]
    calls = []

    def fail_slowly() -> list[str]:
        calls.append(1)
        raise TimeoutError

    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": fail_slowly})
    assert len(end_sessions(ids, EndReason.SESSION_LOST, origin=ORIGIN, now=NOW)) == 5
    assert len(calls) == 1
    assert [event.detail for event in events(Action.ALERT_RAISED)] == ['{"count":5,"rule":"encryption_key_missing"}']


@pytest.mark.parametrize("change", [{"session": uuid.UUID(int=7)}, {"token_type_hint": "access_token"}], ids=repr)
def test_a1_queued_ciphertext_is_bound_to_its_session_and_kind(
    sign_in: Callable[..., SignedIn], settings: Any, change: dict[str, Any]
) -> None:
    signed_in = sign_in()
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"encryption": []})
    ended = end(signed_in)
    assert ended is not None
    settings.PHI_OIDC = with_keys
    rows = PendingRevocation.objects.filter(pk=ended.revocation_ids[0])
    assert rows.get().decrypt_token() == REFRESH_TOKEN
    rows.update(**change)
    with pytest.raises(CiphertextInvalid):
        rows.get().decrypt_token()


def test_a1_end_session_without_its_key_keeps_an_offline_refresh_token_out_of_the_queue(
    sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    signed_in = sign_in()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    keep = {"keep_offline_providers": ["default"]}
    end_sessions([signed_in.session.pk], EndReason.BACKCHANNEL_LOGOUT, origin=ORIGIN, now=NOW, **keep)
    assert list(PendingRevocation.objects.values_list("token_type_hint", flat=True)) == ["access_token"]


@pytest.mark.parametrize("has_ended", [False, True])
def test_end_session_without_its_key_makes_its_access_token_known_as_revoked(
    sign_in: Callable[..., SignedIn], settings: Any, *, has_ended: bool
) -> None:
    signed_in = sign_in()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    if has_ended:
        end(signed_in)
    assert is_revoked(ACCESS_TOKEN, now=NOW) is has_ended
    assert not is_revoked(REFRESH_TOKEN, now=NOW)


def test_end_session_with_a_damaged_token_revokes_the_other(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_phi_oidc_oidcsession SET refresh_token = 'damaged'")
    ended = end(signed_in)
    assert ended is not None
    assert not django_session_exists(signed_in.django_key)
    sweep_revocations()
    assert [asked["token"] for asked in op.asked] == [ACCESS_TOKEN]
    statuses = dict(PendingRevocation.objects.values_list("token_type_hint", "status"))
    assert statuses == {"refresh_token": "pending", "access_token": "done"}
    assert [event.detail for event in events(Action.TOKEN_REVOCATION_FAILED)] == [
        '{"attempts":1,"hint":"refresh_token","status":"pending"}'
    ]
    assert [(event.reason, event.detail) for event in events(Action.ALERT_RAISED)] == [
        ("undecryptable", '{"rule":"session_undecryptable"}')
    ]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_end_session_with_a_damaged_session_key_raises_an_alert(
    sign_in: Callable[..., SignedIn], *, is_damaged: bool
) -> None:
    signed_in = sign_in()
    if is_damaged:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE django_phi_oidc_oidcsession SET session_key = 'damaged'")
    assert end(signed_in) is not None
    assert django_session_exists(signed_in.django_key) is is_damaged
    alerts = ['{"rule":"session_undecryptable"}'] if is_damaged else []
    assert [event.detail for event in events(Action.ALERT_RAISED)] == alerts


@pytest.mark.parametrize("engine", ["db", "cached_db", "cache"])
def test_end_session_by_every_server_side_engine_deletes_the_django_session(
    sign_in: Callable[..., SignedIn], settings: Any, engine: str
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    signed_in = sign_in()
    store = import_module(settings.SESSION_ENGINE).SessionStore
    assert store(signed_in.django_key).load() != {}
    with transaction.atomic():
        end(signed_in)
        # A read before the commit fills the cache of cached_db again.
        if engine != "db":
            assert store(signed_in.django_key).load() != {} or engine == "cached_db"
    assert store(signed_in.django_key).load() == {}
    assert not Session.objects.exists()


def test_end_session_by_ten_concurrent_callers_ends_it_once(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    barrier, results = threading.Barrier(10), []

    def work() -> None:
        barrier.wait()
        try:
            results.append(end(signed_in))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10
    assert len([result for result in results if result is not None]) == 1
    assert PendingRevocation.objects.filter(status=RevocationStatus.PENDING).count() == 2
    flush()
    assert len(events(Action.SESSION_ENDED)) == 1


def test_repr_of_an_ended_session_shows_no_id_token(sign_in: Callable[..., SignedIn]) -> None:
    ended = end(sign_in(), EndReason.LOGOUT)
    assert ended is not None
    assert ended.id_token
    assert ended.id_token not in repr(ended)


def test_end_session_that_fails_shows_no_token_in_an_error_report(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_phi_oidc_pendingrevocation RENAME TO away")
    try:
        with pytest.raises(DatabaseError) as failed:
            end(signed_in)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO django_phi_oidc_pendingrevocation")
    report = ExceptionReporter(RequestFactory().get("/"), failed.type, failed.value, failed.tb).get_traceback_html()
    assert "end_session" in report
    assert [
        secret for secret in (ACCESS_TOKEN, REFRESH_TOKEN, id_token(), signed_in.django_key) if secret in report
    ] == []
    assert OIDCSession.objects.get().ended_at is None
