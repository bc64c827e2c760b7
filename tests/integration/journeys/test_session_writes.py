"""The Django session of a sign-in is written once, and again only where a host project has put something into it."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from django.apps.registry import Apps
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.models import Session
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.request_context import SESSION_KEY
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.test_sign_in_faults import engine, near
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING

__all__ = ["engine", "near"]  # fixtures
pytestmark = pytest.mark.django_db(**EVERYTHING)


@pytest.fixture
def receiving() -> Iterator[Callable[[Callable[[Any], None]], None]]:
    """Let a receiver of the host's do something to the session at every sign-in."""
    acts: list[Callable[[Any], None]] = []

    def receive(request: Any, **kwargs: Any) -> None:
        for act in acts:
            act(request.session)

    user_logged_in.connect(receive)
    yield acts.append
    user_logged_in.disconnect(receive)


def kept(near: Browser, engine: str) -> Any:
    """Return the session of the browser as the engine holds it."""
    module = __import__(f"django.contrib.sessions.backends.{engine}", fromlist=["SessionStore"])
    return module.SessionStore(near.cookies["sessionid"])


@pytest.mark.parametrize(
    ("act", "written"),
    [
        (lambda session: session.update({}), ["INSERT"]),
        (lambda session: session.update({"a": 1}), ["INSERT", "UPDATE"]),
    ],
    ids=["nothing of the host's", "something of the host's"],
)
def test_sign_in_writes_its_django_session_once(
    act: Callable[[Any], None],
    written: list[str],
    settings: Any,
    op: DemoProvider,
    near: Browser,
    receiving: Any,
) -> None:
    settings.SESSION_COOKIE_SECURE = False
    receiving(act)
    callback = near.get_callback_url(op)
    with CaptureQueriesContext(connection) as queries:
        assert near.get(callback).status == 302
    assert [query["sql"].split()[0] for query in queries if '"django_session"' in query["sql"]] == written
    assert Session.objects.get().session_key == near.cookies["sessionid"]
    assert near.user() != ""


class OwnSession(Session):
    """A host project's own session model, which notes what is saved."""

    saved: ClassVar[list[str]] = []

    class Meta:
        proxy, app_label = True, "sessions"
        apps = Apps()

    def save(self, *args: Any, **options: Any) -> None:
        self.saved.append(self.session_key)
        super().save(*args, **options)


class SessionStore(DatabaseStore):
    """The engine of that model."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        return OwnSession


@pytest.mark.sqlite
@pytest.mark.parametrize(("engine_of", "is_own"), [(__name__, True), ("django.contrib.sessions.backends.db", False)])
def test_session_of_a_model_of_the_host_s_own_is_saved_by_that_model(
    engine_of: str, is_own: bool, settings: Any, op: DemoProvider, near: Browser
) -> None:
    settings.SESSION_COOKIE_SECURE = False
    settings.SESSION_ENGINE = engine_of
    OwnSession.saved.clear()
    assert near.sign_in(op).status == 302
    assert OwnSession.saved == ([near.cookies["sessionid"]] if is_own else [])
    assert near.user() != ""


def test_session_of_each_engine_signs_the_person_in(engine: str, op: DemoProvider, near: Browser) -> None:
    assert near.sign_in(op).status == 302
    session = kept(near, engine)
    assert (session["_auth_user_id"], len(session[SESSION_KEY])) == (near.user(), 36)
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
    ids=["left to the middleware", "saved", "saved and taken out"],
)
def test_session_is_kept_as_a_receiver_leaves_it(
    act: Callable[[Any], None], greeting: Any, engine: str, op: DemoProvider, near: Browser, receiving: Any
) -> None:
    receiving(act)
    assert near.sign_in(op).status == 302
    assert kept(near, engine).get("greeting") == greeting


def test_key_that_a_receiver_cycles_is_the_one_that_is_kept(
    engine: str, op: DemoProvider, near: Browser, receiving: Any
) -> None:
    first: list[str] = []
    receiving(lambda session: (first.append(session.session_key), session.cycle_key()))
    assert near.sign_in(op).status == 302
    assert near.cookies["sessionid"] not in first
    assert near.user() != ""
    assert not kept(near, engine).exists(first[0])


def test_session_that_a_receiver_shortens_ends_when_the_receiver_said(
    engine: str, op: DemoProvider, near: Browser, receiving: Any
) -> None:
    receiving(lambda session: session.set_expiry(60))
    assert near.sign_in(op).status == 302
    assert kept(near, engine).get_expiry_age() == 60
