"""Access tokens of the demo provider at the portal's API, over HTTP: which are good, and what is said of the others."""

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connections
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent, RefusalCount
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.audit.throttling import MAX_EVENTS_PER_SENDER, flush_refusal_counts
from django_phi_oidc.subjects.models import PairwiseSubject
from django_phi_oidc.testing.mock_provider import (
    DemoProvider,
    MutableExchange,
    Reply,
    Resource,
    corrupt_signature,
    create_signing_key,
    sign_jwt,
)
from tests.support.api_fixtures import API, EVERYTHING, OTHER_API, App, Declare, refusals
from tests.support.celery_worker import eventually
from tests.support.guarded_views import RAN
from tests.support.session_fixtures import SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = pytest.mark.django_db(**EVERYTHING)
INVALID = (
    'Bearer error="invalid_token", '
    'error_description="The access token is expired, revoked, malformed or not for this API"'
)
METHODS = ("jwt", "introspection")


def is_let_in(response: Any, app: App) -> bool:
    assert not response.cookies, "a token opens no session"
    return bool(response.status_code == 200 and response.json()["user"] == app.user.pk)


def is_invalid(response: Any) -> bool:
    """Whatever was wrong, the answer is the same."""
    assert (response.status_code, response["WWW-Authenticate"]) == (401, INVALID), response.content
    assert not response.cookies
    assert response.json() == {"detail": "The access token is expired, revoked, malformed or not for this API."}
    return True


def lying(claims: dict[str, Any] | None = None, **header: Any) -> Callable[[str, MutableExchange], None]:
    """Return a hook that changes what stands in access tokens; None as a value leaves it out."""

    def lie(stage: str, exchange: MutableExchange) -> None:
        if stage != "access_token":
            return
        for told, changes in ((exchange.claims, claims or {}), (exchange.header, header)):
            told.update(changes)
            for name in [name for name, value in told.items() if value is None]:
                del told[name]

    return lie


@contextmanager
def ahead(seconds: float) -> Any:
    with clock.override_clock(lambda: clock._get_system_time() + timedelta(seconds=seconds)):
        yield


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("jwt", [True, False])
def test_token_for_this_api_is_let_in_as_its_person(
    method: str, jwt: bool, op: DemoProvider, app: App, declare: Declare
) -> None:
    op.register_resource(Resource(API, ["chart.read"], issues_jwt=jwt))
    declare(method=method)
    token = app.token()
    assert token.count(".") == (2 if jwt else 0)
    if method == "jwt" and not jwt:
        assert is_invalid(app.get("/whoami/", token))
        return
    assert is_let_in(app.get("/whoami/", token), app)
    assert is_let_in(app.client.get("/whoami/", headers={"Authorization": f"bEARER  {token} "}), app)
    assert is_let_in(app.get("/sessionfirst/", token), app)
    assert refusals() == []


@pytest.mark.parametrize("method", METHODS)
def test_token_for_another_audience_is_refused(method: str, app: App, declare: Declare) -> None:
    declare(method=method)
    assert is_let_in(app.get("/whoami/", app.token()), app)
    assert is_invalid(app.get("/whoami/", app.token(resource=OTHER_API)))
    assert is_invalid(app.get("/sessionfirst/", app.token(resource=OTHER_API)))
    assert refusals() == [("aud_invalid", "default", "failure")] * 2


@pytest.mark.parametrize("method", METHODS)
def test_id_token_and_refresh_token_are_no_access_tokens(method: str, app: App, declare: Declare) -> None:
    declare(method=method)
    tokens = app.tokens()
    assert is_let_in(app.get("/whoami/", tokens["access_token"]), app)
    assert is_invalid(app.get("/whoami/", tokens["id_token"]))
    assert is_invalid(app.get("/whoami/", tokens["refresh_token"]))
    of_id_token, of_refresh_token = [reason for reason, *_ in refusals()]
    assert of_id_token == {"jwt": "typ_invalid", "introspection": "token_inactive"}[method]
    assert of_refresh_token == {"jwt": "token_malformed", "introspection": "token_inactive"}[method]


def test_id_token_with_the_apis_audience_is_no_access_token(op: DemoProvider, app: App) -> None:
    """Such as a provider could be talked into; its type is what tells."""
    op.mutate = lying(typ="JWT")
    assert is_invalid(app.get("/whoami/", app.token()))
    assert refusals() == [("typ_invalid", "default", "failure")]


def test_token_of_the_providers_own_userinfo_is_no_proof(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection")
    token = app.token(resource="", scope="openid profile")
    assert is_invalid(app.get("/whoami/", token))
    assert refusals() == [("token_inactive", "default", "failure")]
    assert not any(request.path == "/userinfo" for request in op.requests)


@pytest.mark.parametrize("method", METHODS)
def test_expired_token_is_refused(method: str, op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method=method, introspection_cache=60)
    token = app.token()
    assert is_let_in(app.get("/whoami/", token), app)
    with ahead(600 + (31 if method == "jwt" else 0)):
        assert is_invalid(app.get("/whoami/", token))
    # What the provider said a moment ago does not count beyond exp: it is asked again.
    assert [reason for reason, *_ in refusals()] == [{"jwt": "exp_invalid", "introspection": "token_inactive"}[method]]


def test_revoked_token_is_dead_after_the_cache_time_at_most(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection", introspection_cache=0.3)
    token = app.token()
    assert is_let_in(app.get("/whoami/", token), app)
    op.state.find_token(token).revoked = True  # type: ignore[union-attr]
    assert is_let_in(app.get("/whoami/", token), app), "what the cache is for"
    time.sleep(0.31)
    assert is_invalid(app.get("/whoami/", token))
    assert refusals() == [("token_inactive", "default", "failure")]
    assert sum(request.path == "/introspect" for request in op.requests) == 2


def test_revoked_token_is_dead_in_time_to_all_who_ask_at_once(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection", introspection_cache=0.2)
    token, asked = app.token(), []
    ends_at = dead_at = time.monotonic() + 60

    def ask() -> None:
        client, began_at = SecureClient(), 0.0
        # However long it takes on a busy machine, each asks once when it must be dead.
        while began_at < min(dead_at, ends_at):
            began_at = time.monotonic()
            status = client.get("/whoami/", headers={"Authorization": f"Bearer {token}"}).status_code
            asked.append((began_at, status))
        connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(asked) > 6)
    op.state.find_token(token).revoked = True  # type: ignore[union-attr]
    dead_at = time.monotonic() + 0.2
    for thread in threads:
        thread.join()
    before, after = ([status for at, status in asked if (at >= dead_at) == is_after] for is_after in (False, True))
    assert (set(after), 200 in before) == ({401}, True)


def test_revoked_token_is_dead_at_once_without_a_cache(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection", introspection_cache=0)
    token = app.token()
    assert is_let_in(app.get("/whoami/", token), app)
    assert app.relying.send("POST", "/revoke", {"token": token}, app.relying.basic).status == 200
    assert is_invalid(app.get("/whoami/", token))


def test_revoked_jwt_lives_until_it_expires(op: DemoProvider, app: App) -> None:
    """The limit of tokens that nobody is asked about."""
    token = app.token()
    assert app.relying.send("POST", "/revoke", {"token": token}, app.relying.basic).status == 200
    assert not op.is_token_active(token)
    assert is_let_in(app.get("/whoami/", token), app)


LIES: dict[str, tuple[Any, str]] = {
    "no typ": (lying(typ=None), "typ_invalid"),
    "alg none": (lying(alg="none"), "alg_not_allowed"),
    "alg HS256": (lying(alg="HS256"), "alg_not_allowed"),
    "another issuer": (lying({"iss": "https://elsewhere.example"}), "iss_invalid"),
    "no scope but a list": (lying({"scope": ["chart.read"]}), "scope_invalid"),
    "no client": (lying({"client_id": None}), "client_id_invalid"),
    "no jti": (lying({"jti": None}), "jti_invalid"),
    "no exp": (lying({"exp": None}), "exp_invalid"),
    "bound to a key": (lying({"cnf": {"jkt": "x"}}), "cnf_unsupported"),
    "the client itself": (lying({"sub": "app"}), "client_for_itself"),
    "what nobody understands": (lying(crit=["x"], x=1), "token_malformed"),
    "an unknown key": (lying(kid="another"), "key_not_found"),
}


def test_token_of_a_provider_that_lies_is_refused(op: DemoProvider, app: App) -> None:
    honest = app.token()
    for name, (lie, rule) in LIES.items():
        op.mutate = lie
        assert is_invalid(app.get("/whoami/", app.token())), name
        assert is_let_in(app.get("/whoami/", honest), app)
        # Whose issuer is nobody's, nobody's token it is.
        provider = "" if rule in ("iss_invalid", "token_malformed") else "default"
        assert refusals()[-1] == (rule, provider, "failure"), name
    assert len(refusals()) == len(LIES)
    # The keys were fetched just now, so this one may be new: nobody can say.
    unknown = app.get("/whoami/", app.token())
    assert (unknown.status_code, unknown["Retry-After"], unknown.has_header("WWW-Authenticate")) == (503, "30", False)
    assert refusals()[-1] == ("key_not_found", "default", "failure")


@pytest.mark.parametrize("method", METHODS)
def test_token_of_a_client_that_is_not_declared_is_refused(method: str, app: App, declare: Declare) -> None:
    token = app.token()
    declare(method=method, clients=["portal", "app"])
    assert is_let_in(app.get("/whoami/", token), app)
    declare(method=method, clients=["portal"])
    assert is_invalid(app.get("/whoami/", token))
    assert refusals() == [("client_not_allowed", "default", "failure")]


@pytest.mark.parametrize("method", METHODS)
def test_key_that_is_new_is_fetched(method: str, op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method=method)
    before = app.token()
    assert is_let_in(app.get("/whoami/", before), app)
    op.rotate_keys()
    assert is_let_in(app.get("/whoami/", app.token()), app)


def test_token_with_a_foreign_signature_is_refused(op: DemoProvider, app: App) -> None:
    token = app.token()

    def under_a_foreign_key(stage: str, exchange: MutableExchange) -> None:
        if stage == "access_token":
            exchange.key = create_signing_key("ES256", kid=exchange.header["kid"])

    op.mutate = under_a_foreign_key
    for forged in (corrupt_signature(token), app.token(), token.rpartition(".")[0] + "."):
        assert is_invalid(app.get("/whoami/", forged))
    assert is_let_in(app.get("/whoami/", token), app)
    assert [reason for reason, *_ in refusals()] == ["signature_invalid"] * 3


@pytest.mark.parametrize("method", METHODS)
def test_person_without_an_active_account_here_is_refused(method: str, app: App, declare: Declare) -> None:
    declare(method=method)
    token = app.token()
    assert is_let_in(app.get("/whoami/", token), app)
    get_user_model().objects.update(is_active=False)
    assert is_invalid(app.get("/whoami/", token))
    get_user_model().objects.update(is_active=True)
    assert is_let_in(app.get("/whoami/", token), app)
    PairwiseSubject.objects.get().delete()
    assert is_invalid(app.get("/whoami/", token))
    assert [reason for reason, *_ in refusals()] == ["user_inactive", "not_provisioned"]
    assert get_user_model().objects.count() == 1, "nobody is made"


def test_token_outside_of_its_header_is_refused(app: App) -> None:
    token = app.token()
    header = {"Authorization": f"Bearer {token}"}
    form = {"data": f"access_token={token}", "content_type": "application/x-www-form-urlencoded; charset=utf-8"}
    refused = [
        app.get(f"/whoami/?access_token={token}"),
        app.get(f"/whoami/?access_token={token}", token),
        app.get("/whoami/?access_token="),
        app.client.post("/whoami/", **form),
        app.client.post("/whoami/", headers=header, **form),
        app.client.put("/whoami/", headers=header, **form),
    ]
    for response in refused:
        assert (response.status_code, RAN) == (400, [])
        assert response["WWW-Authenticate"].startswith('Bearer error="invalid_request", error_description="')
    assert refusals() == [("token_misplaced", "", "failure")] * len(refused)
    taken = app.client.post(
        "/whoami/", {"access": "x", "token": "y"}, headers=header, content_type=form["content_type"]
    )
    assert taken.status_code == 200
    in_json = app.client.post("/whoami/", {"access_token": "y"}, headers=header, content_type="application/json")
    assert in_json.json()["data"] == {"access_token": "y"}, "a name like any other"


def test_form_is_still_the_views_to_read(app: App) -> None:
    header = {"Authorization": f"Bearer {app.token()}"}
    for send in (app.client.post, app.client.put):
        sent = send("/whoami/", "a=1&b=2", headers=header, content_type="application/x-www-form-urlencoded")
        assert sent.json()["data"] == {"a": ["1"], "b": ["2"]}


def test_request_without_a_token_is_told_how_to_come(app: App) -> None:
    for authorization in ("", "Basic cG9ydGFsOng=", "Bearerx y", "DPoP abc", "Token abc"):
        response = app.client.get("/whoami/", headers={"Authorization": authorization} if authorization else {})
        assert (response.status_code, response["WWW-Authenticate"]) == (401, 'Bearer realm="api"')
    assert refusals() == []


def test_what_is_no_token_is_refused(op: DemoProvider, app: App) -> None:
    tokens = ("", "a b", "é", "a,b", '"a"', "a=b", "\x00", "a.b.c", "x" * 70_000)
    for token in tokens:
        assert is_invalid(app.client.get("/whoami/", headers={"Authorization": f"Bearer {token}"}))
    assert refusals() == [("token_malformed", "", "failure")] * len(tokens)
    assert op.requests == [], "nobody was asked about it"


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n")))
def test_no_header_is_answered_but_with_a_challenge(app: App, authorization: str) -> None:
    for sent in (authorization, f"Bearer {authorization}"):
        response = app.client.get("/whoami/", headers={"Authorization": sent})
        assert response.status_code == 401
        assert response["WWW-Authenticate"] in (INVALID, 'Bearer realm="api"')


def test_nobody_is_let_in_while_the_provider_is_away(op: DemoProvider, app: App, declare: Declare) -> None:
    token = app.token()
    op.stop()
    unavailable = app.get("/whoami/", token)
    assert (unavailable.status_code, unavailable["Retry-After"]) == (503, "30")
    assert "WWW-Authenticate" not in unavailable
    declare(method="introspection", introspection_cache=60)
    assert app.get("/whoami/", token).status_code == 503
    op.start()
    assert is_let_in(app.get("/whoami/", token), app)
    op.stop()
    assert is_let_in(app.get("/whoami/", token), app), "what the provider said a moment ago still counts"
    assert refusals() == [("transport_unreachable", "default", "failure")] * 2


ANSWERS: dict[str, Callable[[Reply], None]] = {
    "our client is refused": lambda reply: setattr(reply, "status", 401),
    "an error": lambda reply: setattr(reply, "status", 500),
    "no JSON": lambda reply: setattr(reply, "json", None),
    "no word on it": lambda reply: reply.json.pop("active"),
}


def test_nobody_is_let_in_by_an_answer_that_is_none(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection", introspection_cache=0)
    token = app.token()
    for name, spoil in ANSWERS.items():

        def lie(endpoint: str, exchange: MutableExchange, spoil: Callable[[Reply], None] = spoil) -> None:
            if endpoint == "introspection":
                spoil(exchange.reply)

        op.mutate = lie
        assert app.get("/whoami/", token).status_code == 503, name
        op.mutate = None
        assert is_let_in(app.get("/whoami/", token), app)
    assert refusals() == [("introspection_failed", "default", "failure")] * len(ANSWERS)


def test_provider_without_introspection_lets_nobody_in(op: DemoProvider, app: App, declare: Declare) -> None:
    def silent(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "discovery":
            del exchange.reply.json["introspection_endpoint"]

    op.mutate = silent
    declare(method="introspection")
    assert app.get("/whoami/", app.token()).status_code == 503
    declare(method="jwt")
    assert is_let_in(app.get("/whoami/", app.token()), app)


def test_subject_key_that_is_missing_lets_nobody_in(app: App, settings: Any) -> None:
    token = app.token()
    assert is_let_in(app.get("/whoami/", token), app)
    settings.PHI_OIDC = {**settings.PHI_OIDC, "SUBJECT_KEYS": [settings.PHI_OIDC["AUDIT_MAC_KEYS"][0]]}
    assert app.get("/whoami/", token).status_code == 503
    settings.PHI_OIDC = {**settings.PHI_OIDC, "SUBJECT_KEYS": []}
    assert app.get("/whoami/", token).status_code == 503
    assert [reason for reason, *_ in refusals()] == ["subject_key_missing", "key_missing"]


def test_without_api_declared_no_token_is_good(app: App, settings: Any) -> None:
    token = app.token()
    settings.PHI_OIDC = {**settings.PHI_OIDC, "API": {}}
    assert is_invalid(app.get("/whoami/", token))
    settings.PHI_OIDC = {**settings.PHI_OIDC, "API": {"elsewhere": {"audience": API, "method": "jwt"}}}
    assert is_invalid(app.get("/whoami/", token))


def test_jwt_costs_one_select(app: App) -> None:
    token = app.token()
    assert is_let_in(app.get("/whoami/", token), app)
    with CaptureQueriesContext(connections["default"]) as own, CaptureQueriesContext(connections["phi_audit"]) as trail:
        assert is_let_in(app.get("/whoami/", token), app)
    assert [query["sql"][:6] for query in own.captured_queries] == ["SELECT"]
    assert len(trail) == 0


def test_bearer_beside_the_cookie_of_another_is_the_tokens_person(
    app: App,
    sign_in: Callable[[], SignedIn],  # noqa: F811 -- the fixture
) -> None:
    other = sign_in()
    token = app.token()
    browser = other.client()
    assert browser.get("/whoami/").json()["user"] == other.user.pk
    assert is_let_in(browser.get("/whoami/", headers={"Authorization": f"Bearer {token}"}), app)
    assert is_invalid(browser.get("/whoami/", headers={"Authorization": f"Bearer {corrupt_signature(token)}"}))
    assert browser.get("/whoami/").json()["user"] == other.user.pk


def test_what_a_token_opens_is_kept_by_nobody(
    app: App,
    sign_in: Callable[[], SignedIn],  # noqa: F811 -- the fixture
) -> None:
    clinician = sign_in()
    for _ in range(2):
        assert app.get("/cached/", app.token())["Cache-Control"] == "no-store"
        assert SecureClient().get("/cached/").status_code == 401
    assert RAN == ["Cached"] * 2
    for _ in range(2):
        assert clinician.client().get("/cached/").status_code == 200
    assert RAN == ["Cached"] * 3, "the view could be kept"


def test_token_needs_no_csrf_token_and_a_cookie_does(
    app: App,
    sign_in: Callable[[], SignedIn],  # noqa: F811 -- the fixture
) -> None:
    other = sign_in()
    browser = SecureClient(enforce_csrf_checks=True)
    browser.cookies = other.client().cookies
    assert browser.get("/whoami/").json()["user"] == other.user.pk
    assert browser.post("/whoami/", {}, "application/json").status_code == 403
    header = {"Authorization": f"Bearer {app.token()}"}
    assert is_let_in(browser.post("/whoami/", {}, "application/json", headers=header), app)


def test_flood_of_bad_tokens_is_counted_apart_from_sign_ins(app: App, op: DemoProvider) -> None:
    foreign = sign_jwt({"alg": "ES256", "typ": "at+jwt"}, {"iss": "https://x.example"}, op.state.keys["ES256"])
    at = clock._get_system_time().replace(second=5)
    with clock.override_clock(lambda: at):
        for _ in range(MAX_EVENTS_PER_SENDER + 3):
            assert is_invalid(app.get("/whoami/", foreign))
        assert len(refusals()) == MAX_EVENTS_PER_SENDER
    assert flush_refusal_counts(now=at + timedelta(minutes=2)) == 3
    assert not RefusalCount.objects.exists()
    flush()
    told = AuditEvent.objects.filter(reason="iss_invalid").values_list("action", "detail")
    assert {each for each in told if "count" in each[1]} == {
        ("api.refused", '{"count":3}'),
        ("alert.raised", '{"count":3,"rule":"refusal_burst"}'),
    }


def test_refusal_stays_one_while_the_trail_is_away(app: App) -> None:
    token = app.token()

    def fail(*args: Any) -> Any:
        raise OperationalError("the server is away")

    with connections["phi_audit"].execute_wrapper(fail):
        assert is_invalid(app.get("/whoami/", corrupt_signature(token)))
        assert is_let_in(app.get("/whoami/", token), app)
    assert refusals() == []
