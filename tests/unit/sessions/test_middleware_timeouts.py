"""Timeouts in the middleware, and its database queries."""

import json
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import UserManager
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions import activity
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession
from tests.support.foreign_sessions import (
    FORMER_BACKEND,
    MODEL_BACKEND,
    begin_foreign_session,
)
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import (
    ACCESS_TOKEN,
    NOW,
    REFRESH_TOKEN,
    ScriptedOP,
    SecureClient,
    SignedIn,
    django_session_exists,
    events,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
IDLE, ABSOLUTE = timedelta(minutes=15), timedelta(hours=8)
SECOND = timedelta(seconds=1)
HTML = {"Accept": "text/html,*/*"}
METHODS = ["get", "head", "post", "put", "patch", "delete", "options"]
Ask = Callable[..., HttpResponse]


class Moment:
    """The time that the test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def after(self, elapsed: timedelta) -> None:
        """Set the time to that long after NOW."""
        self.now = NOW + elapsed


@pytest.fixture(autouse=True)
def moment() -> Iterator[Moment]:
    moment = Moment()
    with clock.override_clock(lambda: moment.now):
        yield moment


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return a function that requests a page with the session cookie, by both kinds of server."""

    def ask(key: str, path: str = "/public/", method: str = "get", **headers: str) -> HttpResponse:
        if request.param == "wsgi":
            client = SecureClient()
            client.cookies[django_settings.SESSION_COOKIE_NAME] = key
            return cast(HttpResponse, getattr(client, method)(path, headers=headers))
        asynchronous = AsyncClient()
        asynchronous.cookies[django_settings.SESSION_COOKIE_NAME] = key
        return cast(HttpResponse, async_to_sync(getattr(asynchronous, method))(path, secure=True, headers=headers))

    return ask


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("limit", "reason"), [(IDLE, "idle_timeout"), (ABSOLUTE, "absolute_timeout")])
def test_session_ends_at_its_timeout_for_every_method_and_not_a_second_before(
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
    moment: Moment,
    ask: Ask,
    method: str,
    limit: timedelta,
    reason: str,
) -> None:
    signed_in = sign_in()
    busy_until(signed_in, ask, moment, limit - SECOND)
    assert ask(signed_in.django_key, method=method).status_code == 200
    signed_in = sign_in()
    moment.now += limit
    response = ask(signed_in.django_key, method=method)
    assert response.status_code == 401
    session = OIDCSession.objects.get(pk=signed_in.session.pk)
    assert (session.ended_at, session.end_reason) == (moment.now, "absolute_timeout" if limit == ABSOLUTE else reason)
    assert not django_session_exists(signed_in.django_key)
    assert {asked["token"] for asked in op.asked} == {REFRESH_TOKEN, ACCESS_TOKEN}
    assert not StoredClaim.objects.filter(session=session.pk).exists()
    (event,) = events(Action.SESSION_ENDED)
    assert (event.reason, event.actor) == (session.end_reason, str(signed_in.user.pk))


def busy_until(signed_in: SignedIn, ask: Ask, moment: Moment, end: timedelta) -> None:
    """Send a request every ten minutes."""
    started = moment.now
    while moment.now + timedelta(minutes=10) < started + end:
        moment.now += timedelta(minutes=10)
        assert ask(signed_in.django_key).status_code == 200
    moment.now = started + end


def test_navigation_after_the_timeout_is_redirected_and_a_script_gets_a_problem(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    first, second, third = sign_in(), sign_in(), sign_in()
    moment.after(IDLE)
    led = ask(first.django_key, method="post", **HTML)
    assert (led.status_code, led["Location"]) == (302, "/oidc/logged-out/?expired=1")
    for key, headers in [
        (second.django_key, {**HTML, "Sec-Fetch-Mode": "cors"}),
        (third.django_key, {**HTML, "X-Requested-With": "XMLHttpRequest"}),
    ]:
        refusal = ask(key, **headers)
        assert (refusal.status_code, refusal["Content-Type"]) == (401, "application/problem+json")
        assert json.loads(refusal.content) == {
            "title": "The session is over.",
            "status": 401,
            "code": "idle_timeout",
            "sign_in": "/oidc/authenticate/",
        }
        assert (refusal["Cache-Control"], refusal["WWW-Authenticate"]) == ("no-store", "Session")


def test_timed_out_session_on_a_public_page_ends_and_the_page_is_displayed(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    signed_in = sign_in()
    assert ask(signed_in.django_key, "/open_page/").content.decode() == f"for {signed_in.user.get_username()}"
    moment.after(IDLE)
    assert ask(signed_in.django_key, "/open_page/").content == b"for everybody"
    assert OIDCSession.objects.get().end_reason == "idle_timeout"


def test_timed_out_session_on_an_unknown_page_ends_with_a_404(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    signed_in = sign_in()
    moment.after(IDLE)
    assert ask(signed_in.django_key, "/nowhere/").status_code == 404
    assert OIDCSession.objects.get().end_reason == "idle_timeout"


PASSIVE = {"a passive view": ("/poll/", {}), "the header": ("/public/", {"X-Phi-Passive": "1"})}


@pytest.mark.parametrize(("path", "headers"), PASSIVE.values(), ids=PASSIVE)
def test_passive_request_is_not_an_activity(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask, path: str, headers: dict[str, str]
) -> None:
    polling, working = sign_in(), sign_in()
    moment.after(IDLE / 2)
    assert ask(polling.django_key, path, **headers).status_code == 200
    assert ask(working.django_key).status_code == 200
    moment.after(IDLE)
    assert ask(working.django_key).status_code == 200
    assert ask(polling.django_key).status_code == 401


def test_activity_is_stored_once_a_minute(sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask) -> None:
    signed_in = sign_in()
    observed = []
    for seconds in (29, 59, 60, 90, 119, 120):
        moment.after(timedelta(seconds=seconds))
        ask(signed_in.django_key)
        observed.append((OIDCSession.objects.get().last_seen_at - NOW).total_seconds())
    assert observed == [0, 0, 60, 60, 60, 120]


def test_request_without_a_due_check_reads_only_the_django_session(
    sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    signed_in = sign_in()
    moment.after(timedelta(seconds=29))
    with CaptureQueriesContext(connection) as nothing_due:
        assert ask(signed_in.django_key).status_code == 200
    assert [query["sql"].split()[0] for query in nothing_due] == ["SELECT"]
    moment.after(timedelta(seconds=30))
    with CaptureQueriesContext(connection) as looked:
        assert ask(signed_in.django_key).status_code == 200
    assert ["oidcsession" in query["sql"] for query in looked] == [False, True]
    assert "access_token" not in looked[1]["sql"]
    moment.after(timedelta(seconds=59))
    with CaptureQueriesContext(connection) as looked_recently:
        assert ask(signed_in.django_key).status_code == 200
    assert ["oidcsession" in query["sql"] for query in looked_recently] == [False]


def test_page_each_half_minute_waits_for_no_commit(sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask) -> None:
    signed_in = sign_in()
    store = Session.objects.get(pk=signed_in.django_key)
    statements = []
    for half_minutes in range(1, 21):
        moment.after(timedelta(seconds=30 * half_minutes))
        with CaptureQueriesContext(connection) as queries:
            assert ask(signed_in.django_key).status_code == 200
        statements.append([query["sql"] for query in queries])
        assert moment.now - OIDCSession.objects.get().last_seen_at < timedelta(minutes=1)
    kinds = [[sql.split()[0] for sql in page] for page in statements]
    assert kinds == [["SELECT", "SELECT"], ["SELECT", "SELECT", "UPDATE"]] * 10
    if connection.vendor == "postgresql":
        assert all("synchronous_commit" in page[2] for page in statements[1::2])
    assert Session.objects.get(pk=signed_in.django_key).session_data == store.session_data


def forget_read_times() -> None:
    """Make this process another one, or one that has started after a crash."""
    activity._read_times.clear()


def test_activity_in_another_process_counts(sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask) -> None:
    signed_in = sign_in()
    moment.after(IDLE - 2 * SECOND)
    assert ask(signed_in.django_key, "/poll/").status_code == 200
    moment.after(IDLE - SECOND)
    OIDCSession.objects.update(last_seen_at=moment.now)
    moment.after(IDLE)
    assert ask(signed_in.django_key, "/poll/").status_code == 200
    moment.after(2 * IDLE - 2 * SECOND)
    assert ask(signed_in.django_key, "/poll/").status_code == 200
    moment.after(2 * IDLE - SECOND)
    assert ask(signed_in.django_key, "/poll/").status_code == 401


@pytest.mark.parametrize(("is_lost", "status"), [(False, 200), (True, 401)])
def test_activity_that_a_crash_has_undone_only_shortens_the_session(
    sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask, is_lost: bool, status: int
) -> None:
    signed_in = sign_in()
    moment.after(timedelta(minutes=10))
    assert ask(signed_in.django_key).status_code == 200
    if is_lost:
        OIDCSession.objects.update(last_seen_at=NOW)
    forget_read_times()
    moment.after(IDLE)
    assert ask(signed_in.django_key).status_code == status


@pytest.mark.parametrize(("cookie_age", "is_saved"), [(timedelta(days=14), False), (IDLE, True)])
def test_django_session_is_saved_if_django_would_let_it_expire_before_the_idle_timeout(
    sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask, settings: Any, cookie_age: timedelta, is_saved: bool
) -> None:
    settings.SESSION_COOKIE_AGE = cookie_age.total_seconds()
    signed_in = sign_in()
    moment.after(timedelta(minutes=10))
    response = ask(signed_in.django_key)
    assert (django_settings.SESSION_COOKIE_NAME in response.cookies) is is_saved
    store = Session.get_session_store_class()(signed_in.django_key)
    assert store["phi_oidc_times"][1] == (moment.now if is_saved else NOW).timestamp()


def test_row_is_read_by_a_process_whose_clock_was_ahead(
    sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    signed_in = sign_in()
    moment.after(timedelta(minutes=10))
    assert ask(signed_in.django_key).status_code == 200
    moment.after(timedelta(minutes=1))
    with CaptureQueriesContext(connection) as queries:
        assert ask(signed_in.django_key).status_code == 200
    assert ["oidcsession" in query["sql"] for query in queries] == [False, True]


@dataclass
class Copy:
    """A copy of a Django session as its engine stores it: the row, the cache entry, or both."""

    key: str
    entry: Any = None
    row: Session | None = None

    @classmethod
    def of(cls, key: str) -> "Copy":
        store = import_module(django_settings.SESSION_ENGINE).SessionStore()
        cached = store.cache_key_prefix + key if hasattr(store, "cache_key_prefix") else ""
        return cls(cached, cached and cache.get(cached), Session.objects.filter(session_key=key).first())

    def put_back(self) -> None:
        """Restore it as a cache that was unavailable at the deletion; behind a cache the row stays deleted."""
        if self.key:
            cache.set(self.key, self.entry)
        elif self.row:
            self.row.save(force_insert=True)


@pytest.mark.parametrize("engine", ["db", "cached_db", "cache"])
def test_copy_of_an_ended_session_is_valid_until_the_next_check(
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
    moment: Moment,
    ask: Ask,
    settings: Any,
    tmp_path: Path,
    engine: str,
) -> None:
    shared = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)}
    settings.CACHES = {"default": shared}
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    signed_in = sign_in()
    copy = Copy.of(signed_in.django_key)
    assert (bool(copy.entry), bool(copy.row)) == (engine != "db", engine != "cache")
    end_session(signed_in.session.pk, EndReason.LOGOUT, origin=Origin(), now=moment.now)
    assert ask(signed_in.django_key, "/open_page/").content == b"for everybody", "refused on its next request"
    copy.put_back()
    moment.after(timedelta(seconds=29))
    assert ask(signed_in.django_key).status_code == 200
    moment.after(timedelta(seconds=30))
    assert ask(signed_in.django_key).status_code == 401
    assert not django_session_exists(signed_in.django_key)
    copy.put_back()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"recheck": timedelta(0)})
    moment.after(timedelta(seconds=1))
    assert ask(signed_in.django_key).status_code == 401
    assert not django_session_exists(signed_in.django_key)
    assert [event.reason for event in events(Action.SESSION_ENDED)] == ["logout"]


def test_session_of_an_account_deactivated_without_a_signal_ends_at_the_next_check(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    signed_in, other = sign_in(), sign_in()
    get_user_model()._default_manager.filter(pk=signed_in.user.pk).update(is_active=False)
    moment.after(timedelta(seconds=30))
    assert (ask(signed_in.django_key).status_code, ask(other.django_key).status_code) == (401, 200)
    assert OIDCSession.objects.get(pk=signed_in.session.pk).end_reason == "user_inactive"


def test_session_without_stored_times_is_read_from_the_database(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    signed_in = sign_in()
    store = Session.get_session_store_class()(signed_in.django_key)
    del store["phi_oidc_times"]
    store.save()
    moment.after(IDLE - SECOND)
    assert ask(signed_in.django_key).status_code == 200
    store = Session.get_session_store_class()(signed_in.django_key)
    assert store["phi_oidc_times"] == [NOW.timestamp(), moment.now.timestamp(), moment.now.timestamp()]


def test_new_key_of_the_django_session_is_stored_and_deleted_with_the_session(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    signed_in = sign_in()
    response = ask(signed_in.django_key, "/cycle/")
    key = response.cookies[django_settings.SESSION_COOKIE_NAME].value
    assert key != signed_in.django_key
    assert ask(key).status_code == 200
    end_session(signed_in.session.pk, EndReason.ADMINISTRATOR, origin=Origin(), now=moment.now)
    assert not django_session_exists(key)


def test_session_that_ends_while_a_view_runs_is_flushed_after_it(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    signed_in = sign_in()
    moment.after(timedelta(minutes=2))
    assert ask(signed_in.django_key, "/ended_meanwhile/").status_code == 200
    assert not django_session_exists(signed_in.django_key)
    assert [event.reason for event in events(Action.SESSION_ENDED)] == ["administrator"]


@pytest.fixture
def local(settings: Any) -> str:
    """Sign a user in by password, and return the key of the Django session."""
    settings.AUTHENTICATION_BACKENDS = [
        *settings.AUTHENTICATION_BACKENDS,
        "django.contrib.auth.backends.ModelBackend",
    ]
    get_user_model()._default_manager.create_user(username="local", password="local")
    key: str = SecureClient().get("/password/").cookies[django_settings.SESSION_COOKIE_NAME].value
    return key


@pytest.mark.parametrize("limit", [IDLE, ABSOLUTE])
def test_password_session_ends_too(local: str, moment: Moment, ask: Ask, limit: timedelta) -> None:
    while moment.now + timedelta(minutes=10) < NOW + limit:
        moment.now += timedelta(minutes=10)
        assert ask(local).status_code == 200
    moment.now = moment.now + IDLE - SECOND if limit == IDLE else NOW + limit - SECOND
    assert ask(local, "/open_page/").content == b"for local"
    moment.now += IDLE if limit == IDLE else SECOND
    assert ask(local).status_code == 401
    assert not django_session_exists(local)


def test_session_with_a_fixed_end_ends_then(local: str, moment: Moment, ask: Ask) -> None:
    store = Session.get_session_store_class()(local)
    store["phi_oidc_until"] = int((NOW + timedelta(minutes=10)).timestamp())
    store.save()
    moment.after(timedelta(minutes=10) - SECOND)
    assert ask(local).status_code == 200
    moment.after(timedelta(minutes=10))
    assert ask(local).status_code == 401


PAGES = {"/public/": "870; url=/oidc/logged-out/?expired=1", "/watched/": None, "/data/": None, "/nowhere/": None}


@pytest.mark.parametrize(("path", "refresh"), PAGES.items(), ids=PAGES)
def test_page_refreshes_at_the_timeout(
    sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask, path: str, refresh: str | None
) -> None:
    signed_in = sign_in()
    moment.after(timedelta(seconds=30))
    assert ask(signed_in.django_key, path).headers.get("Refresh") == refresh


def test_page_near_the_absolute_timeout_uses_that_time(
    sign_in: Callable[..., SignedIn], moment: Moment, ask: Ask
) -> None:
    signed_in = sign_in()
    started: datetime = moment.now
    busy_until(signed_in, ask, moment, ABSOLUTE - timedelta(minutes=3))
    response = ask(signed_in.django_key)
    assert response["Refresh"] == "180; url=/oidc/logged-out/?expired=1"
    assert moment.now == started + ABSOLUTE - timedelta(minutes=3)


@pytest.mark.parametrize("backend", [FORMER_BACKEND, MODEL_BACKEND])
@pytest.mark.parametrize("limit", [IDLE, ABSOLUTE])
def test_session_of_another_backend_has_the_same_timeouts_from_its_first_request(
    op: ScriptedOP, moment: Moment, ask: Ask, settings: Any, backend: str, limit: timedelta
) -> None:
    """The former backend may not exist any more: Django then takes the user for anonymous, and keeps the session."""
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, MODEL_BACKEND]
    key = begin_foreign_session(backend=backend)
    assert ask(key).status_code == 200
    started = moment.now
    while limit == ABSOLUTE and moment.now + timedelta(minutes=10) < started + limit:
        moment.now += timedelta(minutes=10)
        assert ask(key).status_code == 200
    moment.now = started + limit - SECOND
    assert ask(key, "/poll/").status_code == 200
    moment.now += SECOND
    assert ask(key).status_code == 401
    assert not django_session_exists(key)


class ActiveUsers(UserManager):  # type: ignore[type-arg]
    """A manager of a host project that leaves users out."""

    def get_queryset(self) -> Any:
        return super().get_queryset().exclude(email="left@example.test")


@pytest.mark.parametrize(("manager", "is_read_again"), [(UserManager, False), (ActiveUsers, True)])
def test_user_that_was_read_with_the_row_is_not_read_again_unless_the_manager_may_leave_it_out(
    sign_in: Callable[..., SignedIn],
    moment: Moment,
    monkeypatch: pytest.MonkeyPatch,
    manager: Any,
    is_read_again: bool,
) -> None:
    signed_in = sign_in()
    moment.after(timedelta(seconds=30))
    own = manager()
    own.model = type(signed_in.user)
    monkeypatch.setitem(vars(type(signed_in.user)._meta), "default_manager", own)
    with CaptureQueriesContext(connection) as queries:
        response = signed_in.client().get("/open_page/")
    assert response.content.decode() == f"for {signed_in.user.get_username()}"
    assert len(queries) == (3 if is_read_again else 2)
    type(signed_in.user)._default_manager.filter(pk=signed_in.user.pk).update(email="left@example.test")
    moment.after(timedelta(seconds=60))
    is_anonymous = signed_in.client().get("/open_page/").content == b"for everybody"
    assert is_anonymous is is_read_again


@pytest.mark.parametrize("asked", ["own", "other"])
def test_checked_user_is_given_for_its_own_id_only(sign_in: Callable[..., SignedIn], asked: str) -> None:
    own, other = sign_in().user, sign_in().user
    with activity.use_checked_user(own):
        assert activity.pop_checked_user((own if asked == "own" else other).pk) is (own if asked == "own" else None)
    assert activity.pop_checked_user(own.pk) is None


def test_checked_user_is_given_once_and_not_to_a_task_that_outlives_the_request(
    sign_in: Callable[..., SignedIn],
) -> None:
    user = sign_in().user
    with activity.use_checked_user(user):
        assert activity.pop_checked_user(user.pk) is user
        assert activity.pop_checked_user(user.pk) is None
    with activity.use_checked_user(user):
        context = copy_context()
    assert context.run(activity.pop_checked_user, user.pk) is None
