import html
import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings as django_settings
from django.db import connections
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern

from django_phi_oidc import urls
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.audit.storage import has_valid_row_mac
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.errors import Code
from django_phi_oidc.http.transport import TransportRequest
from django_phi_oidc.provider.call_limit import MAX_FAILURES, STALLED_SECONDS
from django_phi_oidc.provider.registry import get_provider
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.sessions.rp_initiated_logout import is_valid_logout_state
from tests.support.error_codes import raises
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import (
    ACCESS_TOKEN,
    NOW,
    REFRESH_TOKEN,
    Answer,
    ScriptedOP,
    SecureClient,
    SignedIn,
    answering,
    declare,
    django_session_exists,
    events,
    id_token,
    send,
    waiting,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
COOKIE = django_settings.SESSION_COOKIE_NAME
SECURE_PENDING = f"__Host-phi_oidc_{'0' * 32}"
PENDING = f"phi_oidc_{'f' * 32}"
LINK = re.compile(r'<a class="button" href="([^"]*)">Sign out there too</a>')
FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


def parameters(response: HttpResponse) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(response["Location"]).query).items()}


@pytest.mark.parametrize("path", ["/oidc/logout/", "/oidc/another/logout/"])
def test_logout_ends_the_session_and_redirects_to_the_provider(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], path: str
) -> None:
    signed_in = sign_in(claims={"iss": op.issuer})
    response = signed_in.client().post(path)
    assert OIDCSession.objects.get().end_reason == "logout"
    assert not django_session_exists(signed_in.django_key)
    assert not StoredClaim.objects.filter(name="birthdate").exists()
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    assert (response.status_code, response["Location"].partition("?")[0]) == (302, f"{op.issuer}/end-session")
    sent = parameters(response)
    assert sent.keys() == {"client_id", "post_logout_redirect_uri", "state", "id_token_hint"}
    assert sent["client_id"] == "portal"
    assert sent["post_logout_redirect_uri"] == "https://testserver/oidc/logged-out/"
    assert sent["id_token_hint"] == id_token(iss=op.issuer)


def test_logout_is_one_event_of_each_kind(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    signed_in.client().post("/oidc/logout/")
    assert [event.reason for event in events(Action.SESSION_ENDED)] == ["logout"]
    (event,) = events(Action.LOGOUT_COMPLETED)
    assert (event.actor, event.session) == (str(signed_in.user.pk), str(signed_in.session.pk))


def test_logout_takes_fourteen_statements_and_two_transactions(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    client = sign_in().client()
    with (
        CaptureQueriesContext(connections["default"]) as default_queries,
        CaptureQueriesContext(connections["phi_audit"]) as audit_queries,
    ):
        client.post("/oidc/logout/")
    queries = [[query["sql"] for query in captured] for captured in (default_queries, audit_queries)]
    statements = [[sql for sql in log if not sql.startswith(("BEGIN", "COMMIT"))] for log in queries]
    # SQLite takes one more, to lock the session.
    is_sqlite = connections["default"].vendor == "sqlite"
    assert [len(part) for part in statements] == [13 + is_sqlite, 1], statements
    # The end; its results; and what each of these moves to the audit log, without a transaction around it.
    assert [sum(sql.startswith("BEGIN") for sql in log) for log in queries] == [2, 0], queries
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    assert waiting() == 0


def fail() -> list[str]:
    raise ConnectionError("the key service is sealed")


@pytest.mark.parametrize(
    "rings", [("audit_mac",), ("encryption", "audit_mac"), ("encryption", "subject", "audit_mac")], ids=", ".join
)
@pytest.mark.parametrize("source", [fail, Path("/nonexistent/keys"), []], ids=["callable", "file", "list"])
def test_a2_logout_without_keys_signs_out_and_its_events_follow(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any, rings: tuple[str, ...], source: Any
) -> None:
    signed_in = sign_in()
    client, with_keys = signed_in.client(), settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS=dict.fromkeys(rings, source))
    assert client.post("/oidc/logout/").status_code == 200, "the page that leads to the provider without a hint"
    assert OIDCSession.objects.get().end_reason == "logout"
    assert not django_session_exists(signed_in.django_key)
    assert not StoredClaim.objects.filter(name="birthdate").exists()
    assert len(op.asked) == (0 if "encryption" in rings else 2), "tokens are revoked unless their key is missing"
    actions = (Action.SESSION_ENDED, Action.LOGOUT_COMPLETED, Action.CLAIM_SCRUBBED)
    assert [event for action in actions for event in events(action)] == []
    settings.PHI_OIDC = with_keys
    flush()
    assert waiting() == 0
    for action in actions:
        (event,) = events(action)
        assert has_valid_row_mac(event)
        assert json.loads(event.detail)["signed_late"] is True
        assert (event.actor, event.session) == (str(signed_in.user.pk), str(signed_in.session.pk))


@pytest.mark.parametrize(("method", "status"), [("get", 302), ("post", 200)])
def test_logout_response_clears_the_browser(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any, method: str, status: int
) -> None:
    declare(settings, op, end_session_method=method)
    client = sign_in(claims={"iss": op.issuer}).client()
    for name in (SECURE_PENDING, PENDING, "someone_elses"):
        client.cookies[name] = "x"
    response = client.post("/oidc/logout/")
    assert response.status_code == status
    assert response["Clear-Site-Data"] == '"cache", "storage"'
    assert (response["Cache-Control"], response["Referrer-Policy"]) == ("no-store", "no-referrer")
    deleted = {name: morsel["max-age"] for name, morsel in response.cookies.items()}
    assert deleted == {COOKIE: 0, SECURE_PENDING: 0, PENDING: 0}
    assert response.cookies[SECURE_PENDING]["secure"]


def test_logout_response_clears_all_cookies_if_configured(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLEAR_ALL_COOKIES": True}
    response = sign_in().client().post("/oidc/logout/")
    assert response["Clear-Site-Data"] == '"cache", "cookies", "storage"'


def test_logout_by_get_is_refused(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    assert signed_in.client().get("/oidc/logout/").status_code == 405
    assert OIDCSession.objects.get().ended_at is None


def test_logout_without_csrf_token_is_refused(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    client = Client(enforce_csrf_checks=True)
    client.cookies[COOKIE] = signed_in.django_key
    assert client.post("/oidc/logout/", secure=True).status_code == 403
    assert OIDCSession.objects.get().ended_at is None


def test_logout_without_csrf_middleware_is_protected(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Csrf" not in name]
    signed_in = sign_in()
    client = Client(enforce_csrf_checks=True)
    client.cookies[COOKIE] = signed_in.django_key
    assert client.post("/oidc/logout/", secure=True).status_code == 403
    assert OIDCSession.objects.get().ended_at is None


def test_logout_without_a_session_redirects_to_the_signed_out_page(op: ScriptedOP) -> None:
    client = Client()
    client.cookies[SECURE_PENDING] = "x"
    response = client.post("/oidc/logout/", secure=True)
    assert (response.status_code, response["Location"]) == (302, "/oidc/logged-out/")
    assert set(response.cookies) == {COOKIE, SECURE_PENDING}
    assert events(Action.LOGOUT_COMPLETED) == []


def page_link(response: HttpResponse) -> str:
    """Return the link to the provider of the page with a button, which does not send the browser there by itself."""
    page = response.content.decode()
    assert (response.status_code, "<script" in page, "http-equiv" in page) == (200, False, False)
    (url,) = LINK.findall(page)
    return html.unescape(url)


def test_b4_logout_with_claims_in_the_id_token_asks_on_a_page_of_the_portal(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    personal = {"iss": op.issuer, "birthdate": "1970-01-01"}
    for claims, hint in ((personal, set()), ({**personal, "sid": "sid-1"}, {"logout_hint"})):
        signed_in = sign_in(claims=claims)
        response = signed_in.client().post("/oidc/logout/")
        url = page_link(response)
        assert url.partition("?")[0] == f"{op.issuer}/end-session"
        sent = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert sent.keys() == {"client_id", "post_logout_redirect_uri", "state"} | hint
        assert sent.get("logout_hint", "sid-1") == "sid-1"
        assert id_token(**claims) not in response.content.decode()
        assert response["Clear-Site-Data"] == '"cache", "storage"'
        assert not django_session_exists(signed_in.django_key)


@pytest.mark.parametrize("method", ["get", "post"])
def test_b4_logout_follows_the_declared_policy_of_the_hint(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any, method: str
) -> None:
    claims = {"iss": op.issuer, "birthdate": "1970-01-01", "sid": "sid-1"}
    for policy, hint in (("always", id_token(**claims)), ("never", None)):
        declare(settings, op, end_session_method=method, id_token_hint=policy)
        response = sign_in(claims=claims).client().post("/oidc/logout/")
        if method == "get":
            assert response.status_code == 302
            sent = parameters(response)
        else:
            assert "<script" in response.content.decode(), "the form is sent without a click"
            sent = dict(FIELD.findall(response.content.decode()))
        assert sent.get("id_token_hint") == hint


def test_b4_logout_without_an_id_token_does_not_send_a_form_by_itself(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    declare(settings, op, end_session_method="post")
    former, current = ({"iss": issuer} for issuer in ("https://former.example", op.issuer))
    pages = [sign_in(claims=claims).client().post("/oidc/logout/").content.decode() for claims in (former, current)]
    assert [f'action="{op.issuer}/end-session"' in page for page in pages] == [True, True]
    assert ["<script" in page for page in pages] == [False, True]


def test_b4_logout_sends_the_declared_parameters(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    extra = {"logout_uri": "https://testserver/oidc/logged-out/", "ui_locales": "de fr"}
    declare(settings, op, id_token_hint="never", end_session_parameters=extra)
    sent = parameters(sign_in(claims={"iss": op.issuer}).client().post("/oidc/logout/"))
    assert sent.keys() == {"client_id", "post_logout_redirect_uri", "state", *extra}
    assert {name: sent[name] for name in extra} == extra
    assert sent["client_id"] == "portal"


FAILED_REVOCATION = {"b7 no answer": lambda op: op.hang, "b7 server error": lambda op: answering(503)}


@pytest.mark.parametrize("answer", FAILED_REVOCATION.values(), ids=FAILED_REVOCATION)
def test_b7_logout_after_a_failed_revocation_does_not_send_the_browser_to_the_provider(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], answer: Callable[[ScriptedOP], Answer]
) -> None:
    get_provider("default").get_metadata(timeout_seconds=5)
    op.answer = answer(op)
    response = sign_in(claims={"iss": op.issuer}).client().post("/oidc/logout/")
    assert page_link(response).startswith(f"{op.issuer}/end-session?")
    assert "does not respond at the moment" in response.content.decode()
    assert OIDCSession.objects.get().ended_at is not None


def test_b7_logout_does_not_send_the_browser_to_a_suspended_provider(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    provider = get_provider("default")
    provider.get_metadata(timeout_seconds=5)
    signed_in = sign_in(claims={"iss": op.issuer})
    op.answer = op.hang
    request = TransportRequest(method="POST", url=f"{op.issuer}/token", headers={}, body=b"")
    for _ in range(MAX_FAILURES):
        with raises(Code.TRANSPORT_TIMEOUT):
            provider.transport.send(request, timeout_seconds=STALLED_SECONDS + 0.1)
    response = signed_in.client().post("/oidc/logout/")
    assert set(PendingRevocation.objects.values_list("last_fault", flat=True)) == {Code.PROVIDER_SUSPENDED}
    assert page_link(response).startswith(f"{op.issuer}/end-session?")


@pytest.mark.parametrize("status", [200, 400])
def test_b7_logout_redirects_if_the_provider_has_answered_the_revocation(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], status: int
) -> None:
    op.answer = answering(status)
    response = sign_in(claims={"iss": op.issuer}).client().post("/oidc/logout/")
    assert (response.status_code, response["Location"].partition("?")[0]) == (302, f"{op.issuer}/end-session")


def test_g1_logout_by_post_sends_an_id_token_with_claims_only_if_it_was_kept(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    claims = {"iss": op.issuer, "birthdate": "1970-01-01"}
    for policy, hint in (("minimal", {}), ("always", {"id_token_hint": id_token(**claims)})):
        declare(settings, op, end_session_method="post", id_token_hint=policy)
        signed_in = sign_in(claims=claims)
        with clock.override_clock(lambda: NOW):
            page = signed_in.client().post("/oidc/logout/").content.decode()
        assert not django_session_exists(signed_in.django_key)
        assert f'method="post" action="{op.issuer}/end-session"' in page
        sent = dict(FIELD.findall(page))
        assert is_valid_logout_state(sent.pop("state"), now=NOW)
        assert sent == {
            "client_id": "portal",
            "post_logout_redirect_uri": "https://testserver/oidc/logged-out/",
            **hint,
        }


def test_logout_by_post_has_a_strict_content_security_policy(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    declare(settings, op, end_session_method="post")
    pages = [sign_in(claims={"iss": op.issuer}).client().post("/oidc/logout/") for _ in range(2)]
    nonces = [re.findall(r'nonce="([^"]+)"', page.content.decode()) for page in pages]
    for page, (nonce, *others) in zip(pages, nonces, strict=True):
        assert others == [nonce]
        assert page["Content-Security-Policy"] == (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; "
            f"form-action {op.issuer} 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
    assert nonces[0] != nonces[1]


@pytest.mark.parametrize("method", ["get", "post"])
def test_logout_sends_no_id_token_of_another_issuer(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any, method: str
) -> None:
    declare(settings, op, end_session_method=method)
    response = sign_in(claims={"iss": "https://former.example"}).client().post("/oidc/logout/")
    assert "id_token_hint" not in response.headers.get("Location", response.content.decode())


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1;script-src*/end", f"http://127.0.0.1/{'a' * 9000}"])
def test_logout_with_an_invalid_endpoint_is_local(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], endpoint: str
) -> None:
    op.metadata["end_session_endpoint"] = endpoint
    assert sign_in().client().post("/oidc/logout/")["Location"] == "/oidc/logged-out/"


def test_logout_under_atomic_requests_revokes_after_the_commit(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    observed: list[bool] = []

    def look_from_outside(handler: Any) -> None:
        observed.append(OIDCSession.objects.get().ended_at is not None)
        connections.close_all()
        send(handler, 503)

    op.discovery = look_from_outside
    sign_in().client().post("/oidc/logout/")
    assert observed == [True] * len(observed)
    assert observed


def test_logout_without_an_end_session_endpoint_is_local(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    op.metadata["end_session_endpoint"] = None
    response = sign_in().client().post("/oidc/logout/")
    assert response["Location"] == "/oidc/logged-out/"
    assert len(op.asked) == 2


def test_logout_with_a_hanging_provider_takes_at_most_five_seconds(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    op.discovery = op.hang
    signed_in = sign_in()
    started = time.monotonic()
    response = signed_in.client().post("/oidc/logout/")
    assert time.monotonic() - started < 5
    assert response["Location"] == "/oidc/logged-out/"
    assert OIDCSession.objects.get().ended_at is not None
    assert not django_session_exists(signed_in.django_key)
    assert PendingRevocation.objects.filter(status="pending").count() == 2


def test_logout_with_an_unavailable_provider_ends_the_session(
    settings: Any, unused_port: int, sign_in: Callable[..., SignedIn]
) -> None:
    declare(settings, ScriptedOP(port=unused_port))
    signed_in = sign_in()
    assert signed_in.client().post("/oidc/logout/")["Location"] == "/oidc/logged-out/"
    assert not django_session_exists(signed_in.django_key)
    assert PendingRevocation.objects.filter(status="pending", last_fault="transport_unreachable").count() == 2


def test_signed_out_page_with_our_state_confirms_the_provider_logout(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    client = sign_in(claims={"iss": op.issuer}).client()
    with clock.override_clock(lambda: NOW):
        state = parameters(client.post("/oidc/logout/"))["state"]
    times = {timedelta(0): True, timedelta(minutes=10): True, timedelta(minutes=10, seconds=1): False}
    for later, known in times.items():
        moment = NOW + later
        with clock.override_clock(lambda moment=moment: moment):
            page = client.get("/oidc/logged-out/", {"state": state}).content.decode()
        assert ("your sign-in service has been informed" in page) is known


@pytest.mark.parametrize("query", [{}, {"state": ""}, {"state": "forged.1700000000:sig"}, {"state": "\x00"}])
def test_signed_out_page_without_our_state_confirms_only_the_local_logout(query: dict[str, str]) -> None:
    response = Client().get("/oidc/logged-out/", query, secure=True)
    page = response.content.decode()
    assert "You are signed out" in page
    assert "has been informed" not in page
    assert response["Cache-Control"] == "no-store"


def test_signed_out_page_loads_nothing_from_other_origins() -> None:
    page = Client().get("/oidc/logged-out/", secure=True).content.decode()
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert 'lang="en' in page
    assert 'href="/static/django_phi_oidc/pages.css"' in page


@pytest.mark.parametrize(("query", "is_stated"), [({}, False), ({"expired": "1"}, True), ({"expired": "x"}, False)])
def test_signed_out_page_after_a_timeout_states_the_reason(query: dict[str, str], is_stated: bool) -> None:
    page = Client().get("/oidc/logged-out/", query, secure=True).content.decode()
    assert "You are signed out" in page
    assert ("you were inactive for a while" in page) is is_stated


@pytest.mark.parametrize("query", [{}, {"expired": "1"}])
def test_signed_out_page_states_that_the_user_is_signed_in(
    sign_in: Callable[..., SignedIn], query: dict[str, str]
) -> None:
    page = sign_in().client().get("/oidc/logged-out/", query).content.decode()
    assert "You are still signed in" in page
    assert "you were inactive" not in page
    assert 'action="/oidc/logout/"' in page
    assert "csrfmiddlewaretoken" in page


@pytest.mark.parametrize("pattern", urls.urlpatterns, ids=lambda pattern: str(pattern.pattern))
def test_public_view_runs_without_atomic_requests_on_every_database(pattern: URLPattern) -> None:
    assert pattern.callback._non_atomic_requests == set(connections) == {"default", "phi_audit"}


def test_public_view_needs_no_login(op: ScriptedOP, settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    client = SecureClient()
    assert client.get("/public/")["Location"].startswith(f"{settings.LOGIN_URL}?")
    for name in ("", "default/"):
        begun = client.get(f"/oidc/{name}authenticate/")
        assert begun["Location"].startswith(f"{op.issuer}/authorize?")
        assert client.get(f"/oidc/{name}callback/?state=x&code=y").status_code == 403
        assert client.post(f"/oidc/{name}logout/")["Location"] == "/oidc/logged-out/"
    assert client.get("/oidc/logged-out/").status_code == 200
