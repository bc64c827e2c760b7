"""Logout tokens end all sessions that they name, or none, and only once."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import DatabaseError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import KeyMissing, LogoutTokenReplayed, SubjectKeyMissing
from django_phi_oidc.oidc.logout_token import LogoutToken
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.replay.models import UsedIdentifier
from django_phi_oidc.sessions import backchannel_logout
from django_phi_oidc.sessions.backchannel_logout import process_logout_token
from django_phi_oidc.sessions.frontchannel_logout import end_sessions_of_sid
from django_phi_oidc.sessions.lifecycle import EndedSession, end_sessions
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, TokenToRevoke
from django_phi_oidc.subjects.models import SubjectDigest
from tests.support.databases import child_environment
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import NOW, SignedIn, django_session_exists, events
from tests.unit.sessions.provider_sessions import ISSUER, name, sign_in_again, sign_in_often

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

ORIGIN = Origin(client_ip="192.0.2.7", request_id="r")
UNTIL = NOW + timedelta(minutes=2)
SignIn = Callable[..., SignedIn]


def token(sub: str = "", sid: str = "", *, jti: str = "a-jti", iss: str = ISSUER) -> LogoutToken:
    return LogoutToken(iss=iss, sub=sub, sid=sid, jti=jti, valid_until=UNTIL)


def process(token: LogoutToken, **options: Any) -> list[EndedSession]:
    fields: dict[str, Any] = {"provider": "default", "origin": ORIGIN, "now": NOW}
    return process_logout_token(token, get_subject_keys=lambda: keyring.get_keys("subject"), **fields, **options)


def ended_sessions() -> dict[Any, str]:
    return dict(OIDCSession.objects.exclude(ended_at=None).values_list("pk", "end_reason"))


def used_tokens() -> int:
    return UsedIdentifier.objects.filter(kind="logout_token").count()


@pytest.fixture
def people(sign_in: SignIn) -> dict[str, SignedIn]:
    """Return persons and sessions that differ in one value."""
    people = {
        "amina": name(sign_in(), sub="amina", sid="1"),
        "jonas": name(sign_in(), sub="jonas", sid="3"),
        "a namesake at another OP": name(sign_in(), sub="amina", sid="1", issuer="https://other"),
    }
    amina = people["amina"]
    for label, sid in (("amina elsewhere", "2"), ("amina without a sid", "")):
        key = sign_in_again(amina, sid=sid)
        session = OIDCSession.objects.order_by("started_at", "pk").exclude(
            pk__in=[person.session.pk for person in people.values()]
        )
        people[label] = SignedIn(user=amina.user, subject=amina.subject, session=session.get(), django_key=key)
    return people


@pytest.mark.parametrize(
    ("about", "ends"),
    [
        ({"sub": "amina"}, {"amina", "amina elsewhere", "amina without a sid"}),
        ({"sid": "1"}, {"amina"}),
        ({"sub": "amina", "sid": "1"}, {"amina"}),
        ({"sub": "amina", "sid": "2"}, {"amina elsewhere"}),
        ({"sub": "amina", "sid": "3"}, {"jonas"}),
        ({"sub": "unknown", "sid": "1"}, {"amina"}),
        ({"sub": "amina", "sid": "4"}, set()),
        ({"sub": "unknown"}, set()),
        ({"sid": "4"}, set()),
        ({"sub": "amina", "iss": "https://other"}, {"a namesake at another OP"}),
        ({"sid": "1", "iss": "https://other"}, {"a namesake at another OP"}),
        ({"sub": "amina", "sid": "1", "iss": "https://third"}, set()),
    ],
)
def test_logout_token_ends_only_the_sessions_that_it_names(
    people: dict[str, SignedIn], about: dict[str, str], ends: set[str]
) -> None:
    ended = process(token(**about))
    assert {who for who, each in people.items() if each.session.pk in ended_sessions()} == ends
    assert {who for who, each in people.items() if not django_session_exists(each.django_key)} == ends
    assert len(ended) == len(ends)
    assert set(ended_sessions().values()) <= {"backchannel_logout"}


@pytest.mark.parametrize(
    ("about", "alerts"),
    [
        ({"sub": "amina", "sid": "1"}, []),
        ({"sub": "raw-user-id", "sid": "1"}, ['{"count":1,"rule":"logout_sub_mismatch"}']),
        ({"sid": "1"}, []),
        ({"sub": "raw-user-id", "sid": "4"}, []),
    ],
    ids=["the sub of the session", "another sub", "no sub", "no session"],
)
def test_b1_session_of_the_sid_ends_and_another_sub_raises_an_alert(
    people: dict[str, SignedIn], about: dict[str, str], alerts: list[str]
) -> None:
    ended = process(token(**about))
    assert len(ended) == len(ended_sessions()) == (0 if about["sid"] == "4" else 1)
    raised = events(Action.ALERT_RAISED)
    assert [event.detail for event in raised] == alerts
    assert {(event.provider, event.client_ip) for event in raised} <= {("default", "192.0.2.7")}


@pytest.mark.parametrize(
    ("about", "sessions"), [({"sub": "amina"}, 3), ({"sid": "1"}, 1), ({"sub": "unknown"}, 0), ({"sid": "4"}, 0)]
)
def test_b1_each_logout_token_records_how_many_sessions_it_ended(
    people: dict[str, SignedIn], about: dict[str, str], sessions: int
) -> None:
    process(token(**about))
    (event,) = events(Action.LOGOUT_RECEIVED)
    assert (event.outcome, event.provider, event.client_ip) == ("success", "default", "192.0.2.7")
    assert (event.actor, event.subject, event.detail) == ("", "", f'{{"sessions":{sessions}}}')


def test_b1_logout_token_with_a_sid_needs_no_subject_key(people: dict[str, SignedIn], settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": []})
    with pytest.raises(KeyMissing):
        process(token("amina"))
    assert ended_sessions() == {}
    assert len(process(token("raw-user-id", "1"))) == 1
    assert events(Action.ALERT_RAISED) == []


def test_logout_token_leaves_revocations_to_the_sweep_and_records_events(
    people: dict[str, SignedIn],
) -> None:
    ended = process(token("jonas"))
    rows = PendingRevocation.objects.filter(session=people["jonas"].session.pk)
    assert {(row.status, row.attempts) for row in rows} == {("pending", 0)}
    assert {row.pk for row in rows} == {pk for item in ended for pk in item.revocation_ids}
    (event,) = events(Action.SESSION_ENDED)
    assert (event.reason, event.detail, event.subject) == (
        "backchannel_logout",
        '{"tokens":2}',
        str(people["jonas"].subject.uuid),
    )
    assert (event.actor, event.client_ip, event.request_id) == ("", "192.0.2.7", "r")


@pytest.mark.parametrize("position", [0, 1])
def test_logout_token_finds_a_person_by_any_configured_subject_key(people: dict[str, SignedIn], position: int) -> None:
    key = keyring.get_keys("subject")[position]
    SubjectDigest.objects.exclude(key_id=key.id).delete()
    assert len(process(token("amina"))) == 3


def test_logout_token_of_an_unknown_person_with_a_missing_subject_key_raises(
    people: dict[str, SignedIn], settings: Any
) -> None:
    declared = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"subject": [keyring.generate_key()]})
    with pytest.raises(SubjectKeyMissing):
        process(token("amina"))
    assert len(process(token("amina", "1", jti="of the sid"))) == 1
    settings.PHI_OIDC = declared
    assert len(process(token("amina"))) == 2


# Once and atomically


def test_repeated_logout_token_is_refused(people: dict[str, SignedIn]) -> None:
    process(token("amina"))
    sign_in_again(people["amina"])
    before = ended_sessions()
    with pytest.raises(LogoutTokenReplayed):
        process(token("amina"))
    assert ended_sessions() == before
    assert len(process(token("amina", jti="another"))) == 1


def test_logout_token_without_a_session_is_marked_as_used(people: dict[str, SignedIn]) -> None:
    assert process(token("unknown")) == []
    with pytest.raises(LogoutTokenReplayed):
        process(token("unknown"))


def test_logout_token_with_the_jti_of_another_issuer_is_accepted(people: dict[str, SignedIn]) -> None:
    assert len(process(token("amina"))) == 3
    assert len(process(token("amina", iss="https://other"))) == 1


def test_logout_token_is_remembered_until_it_expires_without_its_jti(people: dict[str, SignedIn]) -> None:
    process(token("amina", jti="jti-canary"))
    row = UsedIdentifier.objects.get(kind="logout_token")
    assert row.until == UNTIL
    assert "canary" not in row.digest


def test_logout_token_in_an_open_transaction_raises(people: dict[str, SignedIn]) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        process(token("amina"))
    assert len(process(token("amina"))) == 3


@contextmanager
def database_refusing() -> Any:
    """Make the database fail after the first sessions have ended."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_phi_oidc_pendingrevocation RENAME TO away")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO django_phi_oidc_pendingrevocation")


def test_logout_token_can_be_repeated_after_a_database_error(
    people: dict[str, SignedIn],
) -> None:
    with database_refusing(), pytest.raises(DatabaseError):
        process(token("amina"))
    assert (ended_sessions(), used_tokens(), events(Action.SESSION_ENDED)) == ({}, 0, [])
    assert all(django_session_exists(person.django_key) for person in people.values())
    assert len(process(token("amina"))) == 3
    assert not django_session_exists(people["amina"].django_key)


def test_logout_token_in_batches_is_one_transaction(
    people: dict[str, SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backchannel_logout, "BATCH_SIZE", 1)
    calls: list[Sequence[Any]] = []

    def fail_in_the_last(ids: Sequence[Any], *args: Any, **options: Any) -> list[EndedSession]:
        calls.append(ids)
        if len(calls) == 3:
            raise DatabaseError("in the last batch")
        return end_sessions(ids, *args, **options)

    monkeypatch.setattr(backchannel_logout, "end_sessions", fail_in_the_last)
    with pytest.raises(DatabaseError, match="last batch"):
        process(token("amina"))
    assert (ended_sessions(), used_tokens()) == ({}, 0)
    assert len(process(token("amina"))) == 3
    assert [len(ids) for ids in calls] == [1] * 6


def run_concurrently(*acts: Callable[[], Any]) -> list[Any]:
    """Run the operations in threads behind one barrier; return their results or exceptions in order."""
    barrier, results = threading.Barrier(len(acts)), [None] * len(acts)

    def run(position: int) -> None:
        connection.ensure_connection()
        barrier.wait(timeout=20)
        try:
            results[position] = acts[position]()
        except (LogoutTokenReplayed, DatabaseError) as error:
            results[position] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(position,)) for position in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


def test_concurrent_logout_token_is_processed_once(people: dict[str, SignedIn]) -> None:
    results = run_concurrently(*[lambda: process(token("amina"))] * 6)
    assert sorted(type(result).__name__ for result in results) == ["LogoutTokenReplayed"] * 5 + ["list"]
    assert len(ended_sessions()) == 3
    assert PendingRevocation.objects.count() == 6
    assert len(events(Action.SESSION_ENDED)) == 3


def test_concurrent_logout_token_is_processed_by_the_second_after_the_first_fails(
    people: dict[str, SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    spent, lock = threading.Event(), threading.Lock()

    def fail_once(*args: Any, **options: Any) -> list[EndedSession]:
        if lock.acquire(blocking=False):
            # The first has inserted the jti; the second waits for it, or will.
            spent.set()
            raise DatabaseError("of the first")
        return end_sessions(*args, **options)

    monkeypatch.setattr(backchannel_logout, "end_sessions", fail_once)

    def second() -> list[EndedSession]:
        assert spent.wait(timeout=20)
        return process(token("amina"))

    first, other = run_concurrently(lambda: process(token("amina")), second)
    assert isinstance(first, DatabaseError)
    assert len(other) == 3
    assert len(ended_sessions()) == 3


@pytest.mark.postgresql
def test_logout_token_waits_for_a_transaction_with_the_same_jti(
    people: dict[str, SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first is in progress, the second neither repeats it nor reports success."""
    holding, waiting = threading.Event(), threading.Event()

    def hold(*args: Any, **options: Any) -> list[EndedSession]:
        holding.set()
        assert waiting.wait(timeout=20)
        return end_sessions(*args, **options)

    monkeypatch.setattr(backchannel_logout, "end_sessions", hold)

    def second() -> Any:
        assert holding.wait(timeout=20)
        threading.Thread(target=signal_waiting_for_lock, args=(waiting,)).start()
        return process(token("amina"))

    first, other = run_concurrently(lambda: process(token("amina")), second)
    assert len(first) == 3
    assert isinstance(other, LogoutTokenReplayed)


def signal_waiting_for_lock(waiting: threading.Event) -> None:
    """Say whether a session waits for a lock in this database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with connection.cursor() as cursor:
        for _ in range(10_000):
            cursor.execute(query)
            if cursor.fetchone()[0]:
                waiting.set()
                break
    connections.close_all()


# Number of statements


def statements(sign_in: SignIn, sessions: int) -> int:
    sign_in_often(sign_in, sessions, sub=f"sub-{sessions}")
    with CaptureQueriesContext(connection) as queries:
        assert len(process(token(f"sub-{sessions}", jti=f"jti-{sessions}"))) == sessions
    return len(queries)


@pytest.mark.postgresql
def test_logout_token_executes_as_many_statements_for_a_hundred_sessions_as_for_ten(sign_in: SignIn) -> None:
    assert statements(sign_in, 100) == statements(sign_in, 10)


@pytest.mark.sqlite
def test_logout_token_on_sqlite_executes_few_statements_for_many_sessions(sign_in: SignIn) -> None:
    """SQLite accepts 999 values in a statement, which is enough for about thirty events."""
    assert statements(sign_in, 100) - statements(sign_in, 10) <= 12


# Offline tokens


def test_logout_token_keeps_offline_tokens_of_the_named_providers_only(people: dict[str, SignedIn]) -> None:
    OIDCSession.objects.filter(pk=people["amina elsewhere"].session.pk).update(provider="other")
    ended = process(token("amina"), keep_offline_providers=["other"])
    hints = {
        item.provider: list(
            PendingRevocation.objects.filter(pk__in=item.revocation_ids)
            .order_by("-token_type_hint")
            .values_list("token_type_hint", flat=True)
        )
        for item in ended
    }
    assert hints == {"default": ["refresh_token", "access_token"], "other": ["access_token"]}
    assert set(OIDCSession.objects.exclude(ended_at=None).values_list("refresh_token", flat=True)) == {None}


@pytest.mark.parametrize(("keep", "kept"), [(["default"], {"held before"}), ([], set())])
def test_logout_token_keeps_offline_tokens_from_before_a_step_up(
    keep: list[str], kept: set[str], people: dict[str, SignedIn]
) -> None:
    """A revocation for another reason is still done, and this end does not change its creation time."""
    earlier, later = NOW - timedelta(hours=1), NOW + timedelta(hours=7)
    pks = {
        name: PendingRevocation.objects.queue(
            [
                TokenToRevoke(
                    token=ReceivedToken(token_type_hint="refresh_token", value=name),
                    provider="default",
                    session_id=people["amina"].session.pk,
                )
            ],
            now=due_at,
        )[0]
        for name, due_at in (("held before", later), ("backing off", earlier))
    }
    PendingRevocation.objects.filter(pk=pks["backing off"]).update(due_at=NOW + timedelta(minutes=5))
    (ended,) = process(token(sid="1"), keep_offline_providers=keep)
    assert {name for name, pk in pks.items() if pk not in ended.revocation_ids} == kept
    rows = PendingRevocation.objects.in_bulk(pks.values())
    assert {name for name, pk in pks.items() if pk not in rows} == kept
    since = {name: rows[pk].created_at for name, pk in pks.items() if pk in rows}
    assert since == {name: at for name, at in (("held before", NOW), ("backing off", earlier)) if name not in kept}
    assert {row.due_at for row in rows.values()} == {NOW}


# Front-channel logout


@pytest.mark.parametrize(
    ("sid", "issuer", "ends"),
    [
        ("1", ISSUER, {"amina"}),
        ("2", ISSUER, {"amina elsewhere"}),
        ("1", "https://other", {"a namesake at another OP"}),
        ("4", ISSUER, set()),
        ("1", "https://third", set()),
    ],
)
def test_end_sessions_of_sid_ends_the_sessions_of_that_sid_and_issuer(
    people: dict[str, SignedIn], sid: str, issuer: str, ends: set[str]
) -> None:
    end_sessions_of_sid(sid, issuer=issuer, origin=ORIGIN, now=NOW)
    assert {who for who, each in people.items() if each.session.pk in ended_sessions()} == ends
    assert {who for who, each in people.items() if not django_session_exists(each.django_key)} == ends
    assert set(ended_sessions().values()) <= {"frontchannel_logout"}


def test_end_sessions_of_unknown_sid_writes_nothing(people: dict[str, SignedIn]) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert end_sessions_of_sid("4", issuer=ISSUER, origin=ORIGIN, now=NOW) == []
    assert [query["sql"].split()[0] for query in queries] == ["SELECT"]


def test_end_sessions_of_sid_revokes_all_tokens(people: dict[str, SignedIn]) -> None:
    (ended,) = end_sessions_of_sid("1", issuer=ISSUER, origin=ORIGIN, now=NOW)
    assert len(ended.revocation_ids) == 2
    assert end_sessions_of_sid("1", issuer=ISSUER, origin=ORIGIN, now=NOW) == []


# Another process


@pytest.mark.urls("tests.support.portal_urls")
@pytest.mark.parametrize("engine", ["db", "cached_db", "cache"])
def test_logout_token_in_one_process_ends_the_session_in_another(
    sign_in: SignIn, settings: Any, tmp_path: Path, engine: str
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)}
    }
    amina, jonas = name(sign_in(), sub="amina"), name(sign_in(), sub="jonas")
    for signed_in in (amina, jonas):
        assert signed_in.client().get("/portal/home/").status_code == 200
    heard = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.unit.sessions.logout_token_process",
            settings.SESSION_ENGINE,
            str(tmp_path),
            ISSUER,
            "amina",
        ],
        env=child_environment(os.environ, django_settings.DATABASES),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (heard.returncode, heard.stdout) == (0, "1\n"), heard.stderr
    assert amina.client().get("/portal/home/").status_code == 302
    assert jonas.client().get("/portal/home/").status_code == 200
