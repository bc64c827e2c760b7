"""The remaining time of a session in a page: by the template tag, and later by the URL."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.template import engines
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.templatetags import phi_oidc
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import NOW, ScriptedOP, SecureClient, SignedIn, django_session_exists

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.session_pages_urls"),
]
IDLE, ABSOLUTE = timedelta(minutes=15), timedelta(hours=8)
SECOND = timedelta(seconds=1)


class Moment:
    now = NOW


@pytest.fixture(autouse=True)
def moment() -> Iterator[Moment]:
    moment = Moment()
    with clock.override_clock(lambda: moment.now):
        yield moment


def data_of(page: str) -> dict[str, str]:
    """Return the data- attributes of the script's tag."""
    (tag,) = re.findall(r"<script [^>]*>", page)
    return {name: unescape(value) for name, value in re.findall(r'data-([a-z-]+)="([^"]*)"', tag)}


def seconds(answer: Any) -> tuple[int, int]:
    values = answer.json()
    return values["idle"], values["absolute"]


def test_time_left_by_get_is_no_activity(sign_in: Callable[..., SignedIn], moment: Moment) -> None:
    client = sign_in().client()
    assert seconds(client.get("/oidc/session/")) == (900, 28800)
    moment.now += timedelta(minutes=10, milliseconds=500)
    response = client.get("/oidc/session/")
    assert seconds(response) == (300, 28200)
    assert (response.status_code, response["Cache-Control"]) == (200, "no-store")
    assert OIDCSession.objects.get().last_seen_at == NOW


def test_time_left_by_post_is_an_activity(sign_in: Callable[..., SignedIn], moment: Moment) -> None:
    client = sign_in().client()
    moment.now += timedelta(minutes=14)
    assert seconds(client.post("/oidc/session/")) == (900, 28800 - 840)
    assert OIDCSession.objects.get().last_seen_at == moment.now
    moment.now += IDLE - SECOND
    assert seconds(client.get("/oidc/session/"))[0] == 1


def test_time_left_by_post_within_a_minute_of_the_stored_activity_is_correct(
    sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    client = sign_in().client()
    moment.now += timedelta(seconds=59)
    assert seconds(client.post("/oidc/session/"))[0] == 900 - 59
    moment.now = NOW + IDLE
    assert client.get("/oidc/session/").status_code == 401


@pytest.mark.parametrize("has_middleware", [True, False])
def test_time_left_by_post_without_csrf_token_is_refused(
    sign_in: Callable[..., SignedIn], settings: Any, has_middleware: bool
) -> None:
    if not has_middleware:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Csrf" not in name]
    signed_in = sign_in()
    client = Client(enforce_csrf_checks=True)
    client.cookies[django_settings.SESSION_COOKIE_NAME] = signed_in.django_key
    assert client.post("/oidc/session/", secure=True).status_code == 403
    token = client.get("/oidc/session/", secure=True).json()["token"]
    sent = {"csrfmiddlewaretoken": token}
    headers = {"Referer": "https://testserver/chart/"}
    assert client.post("/oidc/session/", sent, secure=True, headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["get", "post"])
def test_time_left_after_the_timeout_is_a_problem_and_ends_the_session(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], moment: Moment, method: str
) -> None:
    signed_in = sign_in()
    moment.now += IDLE
    response = getattr(signed_in.client(), method)("/oidc/session/")
    assert (response.status_code, response["Content-Type"]) == (401, "application/problem+json")
    assert response.json()["sign_in"] == "/oidc/authenticate/"
    assert response["Cache-Control"] == "no-store"
    assert not django_session_exists(signed_in.django_key)
    assert OIDCSession.objects.get().end_reason == "idle_timeout"


@pytest.mark.parametrize("method", ["get", "post"])
def test_time_left_without_a_session_is_a_problem_and_no_redirect(settings: Any, method: str) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    response = getattr(SecureClient(), method)("/oidc/session/")
    assert (response.status_code, response.json()["code"]) == (401, "no_session")


def test_time_left_marks_each_session_differently(sign_in: Callable[..., SignedIn]) -> None:
    first, second = sign_in(), sign_in()
    marks = [item.client().get("/oidc/session/").json()["session"] for item in (first, first, second)]
    assert marks[0] == marks[1] != marks[2]
    assert data_of(first.client().get("/chart/").content.decode())["session"] == marks[0]
    values = [str(item) for one in (first, second) for item in (one.session.pk, one.user.pk, one.django_key)]
    assert [item for item in values if item in marks] == []


def test_tag_renders_the_data_of_its_script(sign_in: Callable[..., SignedIn], moment: Moment) -> None:
    client = sign_in().client()
    moment.now += timedelta(minutes=2)
    response = client.get("/chart/")
    page = response.content.decode()
    values = data_of(page)
    assert (values["idle"], values["absolute"], values["warning"]) == ("900", "28680", "60")
    assert (values["url"], values["expired"]) == ("/oidc/session/", "/oidc/logged-out/?expired=1")
    assert '<script src="/static/django_phi_oidc/session.js" defer ' in page
    assert '<meta http-equiv="refresh" content="900; url=/oidc/logged-out/?expired=1">' in page
    assert "Refresh" not in response, "the page sees to it itself"


def test_tag_near_the_absolute_timeout_uses_that_time(sign_in: Callable[..., SignedIn], moment: Moment) -> None:
    client = sign_in().client()
    while moment.now < NOW + ABSOLUTE - timedelta(minutes=10):
        moment.now += timedelta(minutes=10)
        page = client.get("/chart/").content.decode()
    assert data_of(page)["absolute"] == "600"
    assert 'content="600; ' in page


def test_tag_with_a_short_timeout_warns_for_half_of_it(sign_in: Callable[..., SignedIn], settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"idle_timeout": timedelta(seconds=30)})
    assert data_of(sign_in().client().get("/chart/").content.decode())["warning"] == "15"


@pytest.mark.parametrize("headers", [{}, {"X-Phi-Passive": "1"}])
def test_tag_on_a_passive_page_counts_from_the_last_activity(
    sign_in: Callable[..., SignedIn], moment: Moment, headers: dict[str, str]
) -> None:
    client = sign_in().client()
    moment.now += timedelta(minutes=10)
    page = client.get("/chart/" if headers else "/board/", headers=headers).content.decode()
    assert data_of(page)["idle"] == "300"
    assert 'content="300; ' in page


def test_tag_without_a_user_renders_nothing() -> None:
    response = Client().get("/chart/", secure=True)
    assert "<title>Chart</title></head>" in response.content.decode()
    assert "csrftoken" not in response.cookies


def test_tag_twice_on_a_page_renders_once(sign_in: Callable[..., SignedIn]) -> None:
    assert sign_in().client().get("/twice/").content.decode().count("<script") == 1


def test_tag_in_the_sign_in_request_counts_from_it(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, "django.contrib.auth.backends.ModelBackend"]
    get_user_model()._default_manager.create_user(username="local")
    values = data_of(SecureClient().get("/enter/").content.decode())
    assert (values["idle"], values["absolute"]) == ("900", "28800")


def test_tag_translates_and_escapes_its_texts(
    sign_in: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phi_oidc, "_", lambda text: f'«{text}» "<')
    page = sign_in().client().get("/chart/").content.decode()
    assert data_of(page)["stay"] == '«Stay signed in» "<'


@pytest.mark.parametrize("name", ["context", "request"])
def test_tag_has_the_nonce_of_the_project(sign_in: Callable[..., SignedIn], rf: Any, name: str) -> None:
    request = rf.get("/chart/")
    request.user, request.session = sign_in().user, {}
    request.csp_nonce = "n-1" if name == "request" else ""
    template = engines["django"].from_string("{% load phi_oidc %}{% phi_oidc_session %}")
    page = template.render({"csp_nonce": "n-1"} if name == "context" else {}, request)
    assert page.count(' nonce="n-1"') == 2
