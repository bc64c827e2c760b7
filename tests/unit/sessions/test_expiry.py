"""Sessions that the scheduled task ends."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import connection

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.schedule import beat_schedule
from django_phi_oidc.sessions import tasks
from django_phi_oidc.sessions.activity import update_session_key
from django_phi_oidc.sessions.expiry import BATCH_SIZE, MAX_CLOCK_DIFFERENCE
from django_phi_oidc.sessions.models import DUE_AT_ONCE, OIDCSession, PendingRevocation
from django_phi_oidc.sessions.tasks import end_expired_sessions, end_orphaned_sessions
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import NOW, SecureClient, SignedIn, django_session_exists, events, waiting

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
IDLE, ABSOLUTE = timedelta(minutes=15), timedelta(hours=8)
SECOND = timedelta(seconds=1)
ENGINES = {
    "db": "django.contrib.sessions.backends.db",
    "cached_db": "django.contrib.sessions.backends.cached_db",
    "cache": "django.contrib.sessions.backends.cache",
}


class Moment:
    now = NOW


@pytest.fixture(autouse=True)
def moment() -> Iterator[type[Moment]]:
    Moment.now = NOW
    with clock.override_clock(lambda: Moment.now):
        yield Moment


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_wait_for_requests", lambda: None)


@pytest.fixture(params=ENGINES.values(), ids=ENGINES)
def engine(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> str:
    """Use each permitted session engine."""
    use_cache(settings, request.param, tmp_path)
    return str(request.param)


def use_cache(settings: Any, engine: str, folder: Path) -> None:
    """Use the session engine, with a cache that processes share."""
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(folder)}}
    settings.SESSION_ENGINE = engine


@pytest.mark.parametrize(("limit", "reason"), [(IDLE, "idle_timeout"), (ABSOLUTE, "absolute_timeout")])
def test_idle_session_ends_at_its_timeout_and_not_a_second_before(
    engine: str, sign_in: Callable[..., SignedIn], moment: type[Moment], limit: timedelta, reason: str
) -> None:
    signed_in = sign_in()
    moment.now = NOW + limit - SECOND
    if limit == ABSOLUTE:
        OIDCSession.objects.update(last_seen_at=moment.now)
    assert end_expired_sessions() == 0
    moment.now = NOW + limit
    assert end_expired_sessions() == 1
    assert end_expired_sessions() == 0, "once"
    session = OIDCSession.objects.get()
    assert (session.ended_at, session.end_reason) == (moment.now, reason)
    assert (session.access_token, session.refresh_token, session.session_key) == (None, None, None)
    assert not django_session_exists(signed_in.django_key)
    assert not StoredClaim.objects.filter(session=session.pk).exists()
    assert sorted(PendingRevocation.objects.values_list("token_type_hint", flat=True)) == [
        "access_token",
        "refresh_token",
    ]
    assert [event.reason for event in events(Action.SESSION_ENDED)] == [reason]


def delete_django_session(signed_in: SignedIn) -> None:
    import_module(django_settings.SESSION_ENGINE).SessionStore(signed_in.django_key).delete()


def deactivate(signed_in: SignedIn) -> None:
    get_user_model()._default_manager.filter(pk=signed_in.user.pk).update(is_active=False)


def lose_the_user(signed_in: SignedIn) -> None:
    OIDCSession.objects.filter(pk=signed_in.session.pk).update(user=None)


def let_django_session_expire(signed_in: SignedIn) -> None:
    """`set_expiry` may make the Django session expire before the row."""
    store = import_module(django_settings.SESSION_ENGINE).SessionStore(signed_in.django_key)
    store.load()
    # Django uses the system clock here.
    store.set_expiry(-100 * 365 * 24 * 60 * 60)
    store.save()


SILENT = {
    "session_lost": delete_django_session,
    "session_lost (expired)": let_django_session_expire,
    "user_inactive": deactivate,
    "user_inactive (deleted)": lose_the_user,
}


@pytest.mark.parametrize("case", SILENT)
def test_session_that_no_signal_ended_is_found(engine: str, sign_in: Callable[..., SignedIn], case: str) -> None:
    stored, deleted = sign_in(), sign_in()
    SILENT[case](deleted)
    assert end_orphaned_sessions() == 1
    assert OIDCSession.objects.get(pk=deleted.session.pk).end_reason == case.partition(" ")[0]
    assert OIDCSession.objects.get(pk=stored.session.pk).ended_at is None
    assert django_session_exists(stored.django_key)
    assert not django_session_exists(deleted.django_key)


def fail() -> list[str]:
    raise ConnectionError("the key service is sealed")


def list_without_the_newest_key(settings: Any) -> list[str]:
    return list(settings.PHI_OIDC["KEYS"]["encryption"][1:])


MISSING_KEYS: dict[str, Callable[[Any], Any]] = {
    "callable fails": lambda settings: fail,
    "file is missing": lambda settings: Path("/nonexistent/keys"),
    "old list": list_without_the_newest_key,
}


@pytest.fixture
def cache_engine(settings: Any, tmp_path: Path) -> None:
    """Keep the Django sessions in a cache, where only their decrypted keys find them."""
    use_cache(settings, ENGINES["cache"], tmp_path)


@pytest.mark.usefixtures("cache_engine")
@pytest.mark.parametrize("source", MISSING_KEYS.values(), ids=MISSING_KEYS)
def test_a1_session_whose_key_is_missing_is_not_orphaned(
    sign_in: Callable[..., SignedIn], settings: Any, source: Callable[[Any], Any]
) -> None:
    stored, deleted = sign_in(), sign_in()
    delete_django_session(deleted)
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"encryption": source(settings)})
    assert [end_orphaned_sessions() for _ in range(3)] == [0, 0, 0]
    assert OIDCSession.objects.filter(ended_at=None).count() == 2
    assert StoredClaim.objects.count() == 4
    (alert,) = events(Action.ALERT_RAISED)
    assert (alert.reason, alert.detail) == ("key_missing", '{"count":2,"rule":"encryption_key_missing"}')
    settings.PHI_OIDC = with_keys
    assert end_orphaned_sessions() == 1
    assert OIDCSession.objects.get(ended_at=None).pk == stored.session.pk


@pytest.mark.parametrize("source", MISSING_KEYS.values(), ids=MISSING_KEYS)
@pytest.mark.parametrize("name", ["db", "cached_db"])
def test_lost_session_in_the_database_is_found_without_its_key(
    name: str, sign_in: Callable[..., SignedIn], settings: Any, tmp_path: Path, source: Callable[[Any], Any]
) -> None:
    use_cache(settings, ENGINES[name], tmp_path)
    stored, deleted = sign_in(), sign_in()
    delete_django_session(deleted)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": source(settings)})
    assert [end_orphaned_sessions() for _ in range(2)] == [1, 0]
    assert OIDCSession.objects.get(ended_at=None).pk == stored.session.pk
    assert PendingRevocation.objects.filter(session_token__isnull=False).count() == 2


@pytest.mark.usefixtures("cache_engine")
def test_a1_session_whose_key_is_missing_at_the_second_check_is_not_orphaned(
    sign_in: Callable[..., SignedIn], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_django_session(sign_in())
    with_keys = settings.PHI_OIDC

    def lose_the_key() -> None:
        settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"encryption": fail})

    monkeypatch.setattr(tasks, "_wait_for_requests", lose_the_key)
    assert end_orphaned_sessions() == 0
    assert [event.reason for event in events(Action.ALERT_RAISED)] == ["key_missing"]
    monkeypatch.setattr(tasks, "_wait_for_requests", lambda: None)
    settings.PHI_OIDC = with_keys
    assert end_orphaned_sessions() == 1


@pytest.mark.parametrize(("name", "ended"), [("db", 0), ("cache", 1)])
def test_a1_session_with_a_damaged_key_is_orphaned_if_only_the_key_finds_it(
    name: str, ended: int, sign_in: Callable[..., SignedIn], settings: Any, tmp_path: Path
) -> None:
    use_cache(settings, ENGINES[name], tmp_path)
    sign_in()
    assert end_orphaned_sessions() == 0
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_phi_oidc_oidcsession SET session_key = 'damaged'")
    assert end_orphaned_sessions() == ended
    assert OIDCSession.objects.get().end_reason == ("session_lost" if ended else "")


@pytest.mark.usefixtures("cache_engine")
def test_a1_without_any_key_the_alert_waits_in_the_outbox_once(sign_in: Callable[..., SignedIn], settings: Any) -> None:
    sign_in()
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"encryption": fail, "audit_mac": fail})
    assert [end_orphaned_sessions() for _ in range(3)] == [0, 0, 0]
    assert (waiting(), events(Action.ALERT_RAISED)) == (1, [])
    settings.PHI_OIDC = with_keys
    assert flush() == 1
    assert '{"count":1,"rule":"encryption_key_missing","signed_late":true}' in [
        event.detail for event in events(Action.ALERT_RAISED)
    ]


@pytest.mark.parametrize(("limit", "reason"), [(IDLE, "idle_timeout"), (ABSOLUTE, "absolute_timeout")])
def test_a2_session_ends_at_its_timeout_without_any_key(
    sign_in: Callable[..., SignedIn], moment: type[Moment], settings: Any, limit: timedelta, reason: str
) -> None:
    sign_in()
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"encryption": fail, "audit_mac": fail})
    moment.now = NOW + limit - SECOND
    if limit == ABSOLUTE:
        OIDCSession.objects.update(last_seen_at=moment.now)
    assert end_expired_sessions() == 0
    moment.now = NOW + limit
    assert end_expired_sessions() == 1
    assert OIDCSession.objects.get().end_reason == reason
    assert PendingRevocation.objects.filter(session_token__isnull=False).count() == 2
    assert events(Action.SESSION_ENDED) == []
    settings.PHI_OIDC = with_keys
    flush()
    assert [event.reason for event in events(Action.SESSION_ENDED)] == [reason]


def test_session_with_a_cycled_key_stays_live(
    sign_in: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first check finds the old key deleted; then the request ends and stores the new one."""
    signed_in = sign_in()
    store = import_module(django_settings.SESSION_ENGINE).SessionStore(signed_in.django_key)
    store.load()
    store.cycle_key()
    waited = []

    def note_the_new_key() -> None:
        waited.append(update_session_key(signed_in.session.pk, django_session_key=store.session_key))

    monkeypatch.setattr(tasks, "_wait_for_requests", note_the_new_key)
    assert end_orphaned_sessions() == 0
    assert waited == [True]
    assert OIDCSession.objects.get().ended_at is None


def test_more_sessions_than_one_transaction_takes_are_all_ended(
    sign_in: Callable[..., SignedIn], moment: type[Moment]
) -> None:
    model = sign_in()
    OIDCSession.objects.bulk_create(
        OIDCSession(
            id=f"00000000-0000-4000-8000-{number:012}",
            user=model.user,
            subject=model.subject,
            provider="default",
            issuer="https://op",
            session_key_digest="0" * 64,
            started_at=NOW,
            last_seen_at=NOW,
        )
        for number in range(BATCH_SIZE + 1)
    )
    moment.now = NOW + IDLE
    assert end_expired_sessions() == BATCH_SIZE + 2
    # On a busy machine, a batch may take longer than a commit waits for the audit log.
    flush(limit=2 * BATCH_SIZE)
    assert len(events(Action.SESSION_ENDED)) == BATCH_SIZE + 2


def test_statements_do_not_grow_with_the_sessions(
    sign_in: Callable[..., SignedIn], moment: type[Moment], django_assert_max_num_queries: Any
) -> None:
    for _ in range(20):
        sign_in()
    moment.now = NOW + IDLE
    # On PostgreSQL, limits of lock waits need a transaction for each statement.
    with django_assert_max_num_queries(35):
        assert end_expired_sessions() == 20


@pytest.mark.sqlite
@pytest.mark.parametrize("live", [1, 5])
def test_run_without_a_due_session_is_one_statement(
    live: int, sign_in: Callable[..., SignedIn], moment: type[Moment], django_assert_num_queries: Any
) -> None:
    for _ in range(live):
        sign_in()
    moment.now = NOW + IDLE - SECOND
    with django_assert_num_queries(1):
        assert end_expired_sessions() == 0


def test_active_session_is_next_due_when_it_would_time_out(
    sign_in: Callable[..., SignedIn], moment: type[Moment]
) -> None:
    row = OIDCSession.objects.filter(pk=sign_in().session.pk)
    for seen, due in ((timedelta(minutes=14), timedelta(minutes=29)), (ABSOLUTE - SECOND, ABSOLUTE)):
        assert row.update(last_seen_at=NOW + seen)
        moment.now = row.get().due_at
        assert end_expired_sessions() == 0
        assert row.get().due_at == NOW + due
    moment.now = NOW + ABSOLUTE
    assert end_expired_sessions() == 1


@pytest.mark.parametrize("is_active", [True, False])
def test_timeout_of_an_inactive_account_erases_its_claims_too(
    is_active: bool, sign_in: Callable[..., SignedIn], moment: type[Moment]
) -> None:
    signed_in = sign_in()
    get_user_model()._default_manager.filter(pk=signed_in.user.pk).update(is_active=is_active)
    moment.now = NOW + IDLE
    assert end_expired_sessions() == 1
    assert OIDCSession.objects.get().end_reason == ("idle_timeout" if is_active else "user_inactive")
    assert StoredClaim.objects.exists() is is_active


@pytest.mark.parametrize("option", ["idle_timeout", "absolute_timeout"])
def test_shorter_timeout_applies_to_live_sessions_after_the_next_check(
    option: str, sign_in: Callable[..., SignedIn], moment: type[Moment], settings: Any
) -> None:
    sign_in()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={option: 300})
    moment.now = NOW + timedelta(minutes=5)
    assert end_expired_sessions() == 0
    assert end_orphaned_sessions() == 0
    assert end_expired_sessions() == 1


@pytest.mark.parametrize(("idle", "ended"), [(IDLE, 1), (IDLE - SECOND, 0)])
def test_session_of_the_former_release_is_compared_with_the_timeouts_at_once(
    idle: timedelta, ended: int, sign_in: Callable[..., SignedIn], moment: type[Moment]
) -> None:
    sign_in()
    OIDCSession.objects.update(due_at=DUE_AT_ONCE)
    moment.now = NOW + idle
    assert end_expired_sessions() == ended
    assert OIDCSession.objects.get().due_at == (DUE_AT_ONCE if ended else NOW + IDLE)


@pytest.mark.parametrize("lost", [0, 3])
def test_statements_of_the_check_do_not_grow_with_the_sessions(
    lost: int, sign_in: Callable[..., SignedIn], django_assert_max_num_queries: Any
) -> None:
    sessions = [sign_in() for _ in range(6)]
    for session in sessions[:lost]:
        delete_django_session(session)
    with django_assert_max_num_queries(50 if lost else 20):
        assert end_orphaned_sessions() == lost


def test_password_session_is_not_ended(moment: type[Moment]) -> None:
    user = get_user_model()._default_manager.create_user(username="local")
    client = SecureClient()
    client.force_login(user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    moment.now = NOW + ABSOLUTE
    assert end_expired_sessions() == 0


def test_schedule_runs_twice_a_minute() -> None:
    assert beat_schedule()["phi_oidc.end_overdue"]["schedule"] == 30


def test_schedule_finds_a_lost_session_within_ten_minutes() -> None:
    assert beat_schedule()["phi_oidc.check_sessions"]["schedule"] == 300


def test_scheduled_task_ends_an_idle_session_within_a_minute() -> None:
    """In the worst case each run has just missed it."""
    pauses = {name: entry["schedule"] for name, entry in beat_schedule().items()}
    in_turn = [pauses[f"phi_oidc.{name}"] for name in ("end_overdue", "sweep_revocations", "drain_outbox")]
    assert sum(in_turn) < 60


@pytest.mark.parametrize("lead", [timedelta(hours=2), timedelta(seconds=50)])
def test_f9_server_with_a_fast_clock_does_not_lengthen_the_timeouts(
    lead: timedelta, moment: type[Moment], sign_in: Callable[..., SignedIn]
) -> None:
    moment.now = datetime.now(UTC)
    person = sign_in()
    rows = OIDCSession.objects.filter(pk=person.session.pk)
    rows.update(last_seen_at=moment.now + lead, started_at=moment.now + lead)
    assert end_orphaned_sessions() == 0
    seen, started = rows.values_list("last_seen_at", "started_at")[0]
    is_limited = lead > MAX_CLOCK_DIFFERENCE
    assert (seen, started) == ((moment.now,) * 2 if is_limited else (moment.now + lead,) * 2)
    moment.now = seen + IDLE
    assert end_expired_sessions() == 1
    assert OIDCSession.objects.get().end_reason == "idle_timeout"


@pytest.mark.postgresql
@pytest.mark.parametrize("lag", [timedelta(hours=2), timedelta(0)])
def test_f9_worker_with_a_wrong_clock_changes_no_session(
    lag: timedelta, moment: type[Moment], sign_in: Callable[..., SignedIn], caplog: pytest.LogCaptureFixture
) -> None:
    moment.now = datetime.now(UTC)
    person = sign_in()
    rows = OIDCSession.objects.filter(pk=person.session.pk)
    rows.update(last_seen_at=moment.now + timedelta(hours=1))
    before = rows.values_list("last_seen_at", flat=True)[0]
    moment.now -= lag
    end_orphaned_sessions()
    assert (rows.values_list("last_seen_at", flat=True)[0] == before) is bool(lag)
    assert ("differ by more than" in caplog.text) is bool(lag)
