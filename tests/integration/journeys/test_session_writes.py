"""A sign-in writes the Django session once, and again only if the host project changed it."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from django.apps.registry import Apps
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.request_context import SESSION_KEY
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.test_sign_in_faults import engine, local_browser
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING

__all__ = ["engine", "local_browser"]  # fixtures
pytestmark = pytest.mark.django_db(**EVERYTHING)


@pytest.fixture
def add_receiver() -> Iterator[Callable[[Callable[[Any], None]], None]]:
    """Return a function that adds a change of the session by a user_logged_in receiver."""
    acts: list[Callable[[Any], None]] = []

    def receive(request: Any, **kwargs: Any) -> None:
        for act in acts:
            act(request.session)

    user_logged_in.connect(receive)
    yield acts.append
    user_logged_in.disconnect(receive)


def stored_session(local_browser: Browser, engine: str) -> Any:
    """Return the browser's session as the engine stored it."""
    module = __import__(f"django.contrib.sessions.backends.{engine}", fromlist=["SessionStore"])
    return module.SessionStore(local_browser.cookies["sessionid"])


@pytest.mark.parametrize(
    ("act", "written"),
    [
        (lambda session: session.update({}), ["INSERT"]),
        (lambda session: session.update({"a": 1}), ["INSERT", "UPDATE"]),
    ],
    ids=["unchanged by the host project", "changed by the host project"],
)
def test_sign_in_writes_its_django_session_once(
    act: Callable[[Any], None],
    written: list[str],
    settings: Any,
    op: DemoProvider,
    local_browser: Browser,
    add_receiver: Any,
) -> None:
    settings.SESSION_COOKIE_SECURE = False
    add_receiver(act)
    callback = local_browser.get_callback_url(op)
    with CaptureQueriesContext(connection) as queries:
        assert local_browser.get(callback).status == 302
    assert [query["sql"].split()[0] for query in queries if '"django_session"' in query["sql"]] == written
    assert Session.objects.get().session_key == local_browser.cookies["sessionid"]
    assert local_browser.user() != ""


class CustomSession(Session):
    """A custom session model of a host project that records which sessions are saved."""

    saved: ClassVar[list[str]] = []

    class Meta:
        proxy, app_label = True, "sessions"
        apps = Apps()

    def save(self, *args: Any, **options: Any) -> None:
        self.saved.append(self.session_key)
        super().save(*args, **options)


class SessionStore(DatabaseStore):
    """The session engine of that model."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        return CustomSession


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("engine_path", "is_custom"), [(__name__, True), ("django.contrib.sessions.backends.db", False)]
)
def test_session_of_a_custom_session_model_is_saved_by_that_model(
    engine_path: str, is_custom: bool, settings: Any, op: DemoProvider, local_browser: Browser
) -> None:
    settings.SESSION_COOKIE_SECURE = False
    settings.SESSION_ENGINE = engine_path
    CustomSession.saved.clear()
    assert local_browser.sign_in(op).status == 302
    assert CustomSession.saved == ([local_browser.cookies["sessionid"]] if is_custom else [])
    assert local_browser.user() != ""


def test_sign_in_works_with_each_session_engine(engine: str, op: DemoProvider, local_browser: Browser) -> None:
    assert local_browser.sign_in(op).status == 302
    session = stored_session(local_browser, engine)
    assert (session["_auth_user_id"], len(session[SESSION_KEY])) == (local_browser.user(), 36)
    assert session.get_expiry_age() == 14 * 24 * 3600


def put(session: Any) -> None:
    session.setdefault("greeting", []).append("hello")


@pytest.mark.parametrize(
    ("act", "greeting"),
    [
        (put, ["hello"]),
        (lambda session: (put(session), session.save()), ["hello"]),
        pytest.param(
            lambda session: (put(session), session.save(), session.pop("greeting")), None, marks=pytest.mark.sqlite
        ),
    ],
    ids=["saved by the middleware", "saved", "saved and removed"],
)
def test_session_changes_of_a_receiver_are_stored(
    act: Callable[[Any], None], greeting: Any, engine: str, op: DemoProvider, local_browser: Browser, add_receiver: Any
) -> None:
    add_receiver(act)
    assert local_browser.sign_in(op).status == 302
    assert stored_session(local_browser, engine).get("greeting") == greeting


def test_session_key_cycled_by_a_receiver_is_stored(
    engine: str, op: DemoProvider, local_browser: Browser, add_receiver: Any
) -> None:
    first: list[str] = []
    add_receiver(lambda session: (first.append(session.session_key), session.cycle_key()))
    assert local_browser.sign_in(op).status == 302
    assert local_browser.cookies["sessionid"] not in first
    assert local_browser.user() != ""
    assert not stored_session(local_browser, engine).exists(first[0])


def test_session_expiry_set_by_a_receiver_is_stored(
    engine: str, op: DemoProvider, local_browser: Browser, add_receiver: Any
) -> None:
    add_receiver(lambda session: session.set_expiry(60))
    assert local_browser.sign_in(op).status == 302
    assert stored_session(local_browser, engine).get_expiry_age() == 60


def test_receivers_of_saved_sessions_are_called(settings: Any, op: DemoProvider, local_browser: Browser) -> None:
    settings.SESSION_COOKIE_SECURE = False
    created: list[str] = []

    def receive(instance: Session, **kwargs: Any) -> None:
        created.append(instance.session_key)

    post_save.connect(receive, sender=Session)
    try:
        assert local_browser.get(local_browser.get_callback_url(op)).status == 302
    finally:
        post_save.disconnect(receive, sender=Session)
    assert created == [local_browser.cookies["sessionid"]]
