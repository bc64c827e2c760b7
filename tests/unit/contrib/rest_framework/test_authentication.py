"""Access tokens of the demo provider at the portal's API, over HTTP: which are accepted, and how others are refused."""

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent, RefusalCount
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.audit.throttling import MAX_EVENTS_PER_SENDER, flush_refusal_counts
from django_phi_oidc.oidc.jose import decode_b64url, encode_b64url
from django_phi_oidc.oidc.token import TokenResponse
from django_phi_oidc.sessions.digests import compute_token_digest
from django_phi_oidc.sessions.kept_id_token import KeptIDToken
from django_phi_oidc.sessions.lifecycle import end_session, renew_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
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
from tests.support.api_fixtures import API, CHALLENGES, EVERYTHING, OTHER_API, App, Declare, refusals
from tests.support.celery_worker import eventually
from tests.support.guarded_views import RAN
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = pytest.mark.django_db(**EVERYTHING)
INVALID = (
    'Bearer error="invalid_token", '
    'error_description="The access token is expired, revoked, malformed or not for this API"'
)
METHODS = ("jwt", "introspection")
ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Spec: FIPS 186-5, SP 800-186 3.2.1.3."""


def is_accepted(response: Any, app: App) -> bool:
    assert not response.cookies, "a token creates no session"
    return bool(response.status_code == 200 and response.json()["user"] == app.user.pk)


def is_invalid(response: Any) -> bool:
    """Check the response, which is the same for each reason."""
    assert (response.status_code, response["WWW-Authenticate"]) == (401, INVALID), response.content
    assert not response.cookies
    assert response.json() == {"detail": "The access token is expired, revoked, malformed or not for this API."}
    return True


def changing(claims: dict[str, Any] | None = None, **header: Any) -> Callable[[str, MutableExchange], None]:
    """Return a hook that changes claims and header of access tokens. The value None removes a member."""

    def change(stage: str, exchange: MutableExchange) -> None:
        if stage != "access_token":
            return
        for members, changes in ((exchange.claims, claims or {}), (exchange.header, header)):
            members.update(changes)
            for name in [name for name, value in members.items() if value is None]:
                del members[name]

    return change


@contextmanager
def ahead(seconds: float) -> Any:
    with clock.override_clock(lambda: clock._get_system_time() + timedelta(seconds=seconds)):
        yield


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("jwt", [True, False])
def test_token_for_this_api_authenticates_its_user(
    method: str, jwt: bool, op: DemoProvider, app: App, declare: Declare
) -> None:
    op.register_resource(Resource(API, ["chart.read"], issues_jwt=jwt))
    declare(method=method)
    token = app.token()
    assert token.count(".") == (2 if jwt else 0)
    if method == "jwt" and not jwt:
        assert is_invalid(app.get("/whoami/", token))
        return
    assert is_accepted(app.get("/whoami/", token), app)
    assert is_accepted(app.client.get("/whoami/", headers={"Authorization": f"bEARER  {token} "}), app)
    assert is_accepted(app.get("/sessionfirst/", token), app)
    assert refusals() == []


@pytest.mark.parametrize("method", METHODS)
def test_token_for_another_audience_is_refused(method: str, app: App, declare: Declare) -> None:
    declare(method=method)
    assert is_accepted(app.get("/whoami/", app.token()), app)
    assert is_invalid(app.get("/whoami/", app.token(resource=OTHER_API)))
    assert is_invalid(app.get("/sessionfirst/", app.token(resource=OTHER_API)))
    assert refusals() == [("aud_invalid", "default", "failure")] * 2


@pytest.mark.parametrize("method", METHODS)
def test_id_token_and_refresh_token_are_no_access_tokens(method: str, app: App, declare: Declare) -> None:
    declare(method=method)
    tokens = app.tokens()
    assert is_accepted(app.get("/whoami/", tokens["access_token"]), app)
    assert is_invalid(app.get("/whoami/", tokens["id_token"]))
    assert is_invalid(app.get("/whoami/", tokens["refresh_token"]))
    of_id_token, of_refresh_token = [reason for reason, *_ in refusals()]
    assert of_id_token == {"jwt": "typ_invalid", "introspection": "token_inactive"}[method]
    assert of_refresh_token == {"jwt": "token_malformed", "introspection": "token_inactive"}[method]


def test_id_token_with_the_audience_of_the_api_is_refused(op: DemoProvider, app: App) -> None:
    """A provider could issue such an ID Token. Only `typ` distinguishes it."""
    op.mutate = changing(typ="JWT")
    assert is_invalid(app.get("/whoami/", app.token()))
    assert refusals() == [("typ_invalid", "default", "failure")]


def test_userinfo_token_is_refused(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection")
    token = app.token(resource="", scope="openid profile")
    assert is_invalid(app.get("/whoami/", token))
    assert refusals() == [("token_inactive", "default", "failure")]
    assert not any(request.path == "/userinfo" for request in op.requests)


@pytest.mark.parametrize("method", METHODS)
def test_expired_token_is_refused(method: str, op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method=method, introspection_cache=60)
    token = app.token()
    assert is_accepted(app.get("/whoami/", token), app)
    with ahead(600 + (31 if method == "jwt" else 0)):
        assert is_invalid(app.get("/whoami/", token))
    # The cached result is not used beyond exp: the token is introspected again.
    assert [reason for reason, *_ in refusals()] == [{"jwt": "exp_invalid", "introspection": "token_inactive"}[method]]


def test_revoked_token_is_refused_after_the_cache_time(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection", introspection_cache=0.3)
    token = app.token()
    assert is_accepted(app.get("/whoami/", token), app)
    op.state.find_token(token).revoked = True  # type: ignore[union-attr]
    assert is_accepted(app.get("/whoami/", token), app), "still cached"
    time.sleep(0.31)
    assert is_invalid(app.get("/whoami/", token))
    assert refusals() == [("token_inactive", "default", "failure")]
    assert sum(request.path == "/introspect" for request in op.requests) == 2


def test_revoked_token_is_refused_in_time_for_concurrent_requests(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection", introspection_cache=0.2)
    token, answers = app.token(), []
    ends_at = invalid_at = time.monotonic() + 60

    def send_requests() -> None:
        client, began_at = SecureClient(), 0.0
        # Also on a slow machine, each thread sends one request after the cache time.
        while began_at < min(invalid_at, ends_at):
            began_at = time.monotonic()
            status = client.get("/whoami/", headers={"Authorization": f"Bearer {token}"}).status_code
            answers.append((began_at, status))
        connections.close_all()

    threads = [threading.Thread(target=send_requests) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(answers) > 6)
    op.state.find_token(token).revoked = True  # type: ignore[union-attr]
    invalid_at = time.monotonic() + 0.2
    for thread in threads:
        thread.join()
    before, after = ([status for at, status in answers if (at >= invalid_at) == is_after] for is_after in (False, True))
    assert (set(after), 200 in before) == ({401}, True)


def test_revoked_token_is_refused_at_once_without_a_cache(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection", introspection_cache=0)
    token = app.token()
    assert is_accepted(app.get("/whoami/", token), app)
    assert app.relying.send("POST", "/revoke", {"token": token}, app.relying.basic).status == 200
    assert is_invalid(app.get("/whoami/", token))


def test_revoked_jwt_is_valid_until_it_expires(op: DemoProvider, app: App) -> None:
    """The limit of tokens that are not introspected."""
    token = app.token()
    assert app.relying.send("POST", "/revoke", {"token": token}, app.relying.basic).status == 200
    assert not op.is_token_active(token)
    assert is_accepted(app.get("/whoami/", token), app)


CHANGES: dict[str, tuple[Any, str]] = {
    "no typ": (changing(typ=None), "typ_invalid"),
    "alg none": (changing(alg="none"), "alg_not_allowed"),
    "alg HS256": (changing(alg="HS256"), "alg_not_allowed"),
    "another issuer": (changing({"iss": "https://elsewhere.example"}), "iss_invalid"),
    "no scope but a list": (changing({"scope": ["chart.read"]}), "scope_invalid"),
    "no client": (changing({"client_id": None}), "client_id_invalid"),
    "no jti": (changing({"jti": None}), "jti_invalid"),
    "no exp": (changing({"exp": None}), "exp_invalid"),
    "bound to a key": (changing({"cnf": {"jkt": "x"}}), "cnf_unsupported"),
    "the client itself": (changing({"sub": "app"}), "client_for_itself"),
    "an unknown crit": (changing(crit=["x"], x=1), "token_malformed"),
    "an unknown key": (changing(kid="another"), "key_not_found"),
}


def test_token_with_an_invalid_claim_or_header_is_refused(op: DemoProvider, app: App) -> None:
    valid = app.token()
    for name, (change, rule) in CHANGES.items():
        op.mutate = change
        assert is_invalid(app.get("/whoami/", app.token())), name
        assert is_accepted(app.get("/whoami/", valid), app)
        # Without a known issuer, the provider is unknown.
        provider = "" if rule in ("iss_invalid", "token_malformed") else "default"
        assert refusals()[-1] == (rule, provider, "failure"), name
    assert len(refusals()) == len(CHANGES)
    # The keys were fetched just now, so this key may be a newer one.
    unknown = app.get("/whoami/", app.token())
    assert (unknown.status_code, unknown["Retry-After"], unknown.has_header("WWW-Authenticate")) == (503, "30", False)
    assert refusals()[-1] == ("key_not_found", "default", "failure")


@pytest.mark.parametrize("method", METHODS)
def test_token_of_an_undeclared_client_is_refused(method: str, app: App, declare: Declare) -> None:
    token = app.token()
    declare(method=method, clients=["portal", "app"])
    assert is_accepted(app.get("/whoami/", token), app)
    declare(method=method, clients=["portal"])
    assert is_invalid(app.get("/whoami/", token))
    assert refusals() == [("client_not_allowed", "default", "failure")]


@pytest.mark.parametrize("method", METHODS)
def test_new_key_is_fetched(method: str, op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method=method)
    before = app.token()
    assert is_accepted(app.get("/whoami/", before), app)
    op.rotate_keys()
    assert is_accepted(app.get("/whoami/", app.token()), app)


def test_token_with_a_foreign_signature_is_refused(op: DemoProvider, app: App) -> None:
    token = app.token()

    def under_a_foreign_key(stage: str, exchange: MutableExchange) -> None:
        if stage == "access_token":
            exchange.key = create_signing_key("ES256", kid=exchange.header["kid"])

    op.mutate = under_a_foreign_key
    for forged in (corrupt_signature(token), app.token(), token.rpartition(".")[0] + "."):
        assert is_invalid(app.get("/whoami/", forged))
    assert is_accepted(app.get("/whoami/", token), app)
    assert [reason for reason, *_ in refusals()] == ["signature_invalid"] * 3


@pytest.mark.parametrize("method", METHODS)
def test_token_without_an_active_linked_user_is_refused(method: str, app: App, declare: Declare) -> None:
    declare(method=method)
    token = app.token()
    assert is_accepted(app.get("/whoami/", token), app)
    get_user_model().objects.update(is_active=False)
    assert is_invalid(app.get("/whoami/", token))
    get_user_model().objects.update(is_active=True)
    assert is_accepted(app.get("/whoami/", token), app)
    PairwiseSubject.objects.get().delete()
    assert is_invalid(app.get("/whoami/", token))
    assert [reason for reason, *_ in refusals()] == ["user_inactive", "not_provisioned"]
    assert get_user_model().objects.count() == 1, "no user is created"


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
    assert in_json.json()["data"] == {"access_token": "y"}, "no reserved name in JSON"


def test_view_can_still_read_the_form(app: App) -> None:
    header = {"Authorization": f"Bearer {app.token()}"}
    for send in (app.client.post, app.client.put):
        sent = send("/whoami/", "a=1&b=2", headers=header, content_type="application/x-www-form-urlencoded")
        assert sent.json()["data"] == {"a": ["1"], "b": ["2"]}


def test_request_without_a_token_gets_a_challenge(app: App) -> None:
    for authorization in ("", "Basic cG9ydGFsOng=", "Bearerx y", "MAC abc", "Token abc"):
        response = app.client.get("/whoami/", headers={"Authorization": authorization} if authorization else {})
        assert (response.status_code, response["WWW-Authenticate"]) == (401, CHALLENGES)
    assert refusals() == []


def test_malformed_token_is_refused(op: DemoProvider, app: App) -> None:
    tokens = ("", "a b", "é", "a,b", '"a"', "a=b", "\x00", "a.b.c", "x" * 70_000)
    for token in tokens:
        assert is_invalid(app.client.get("/whoami/", headers={"Authorization": f"Bearer {token}"}))
    assert refusals() == [("token_malformed", "", "failure")] * len(tokens)
    assert op.requests == [], "no request to the provider"


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n")))
@example("DPoP")
def test_any_other_header_gets_a_challenge(app: App, authorization: str) -> None:
    invalid_proof = INVALID.replace("Bearer", "DPoP")
    for sent in (authorization, f"Bearer {authorization}"):
        response = app.client.get("/whoami/", headers={"Authorization": sent})
        assert response.status_code == 401
        challenge = response["WWW-Authenticate"]
        assert challenge in (INVALID, CHALLENGES) or challenge.startswith(invalid_proof)


def test_token_is_refused_while_the_provider_is_unreachable(op: DemoProvider, app: App, declare: Declare) -> None:
    token = app.token()
    op.stop()
    unavailable = app.get("/whoami/", token)
    assert (unavailable.status_code, unavailable["Retry-After"]) == (503, "30")
    assert "WWW-Authenticate" not in unavailable
    declare(method="introspection", introspection_cache=60)
    assert app.get("/whoami/", token).status_code == 503
    op.start()
    assert is_accepted(app.get("/whoami/", token), app)
    op.stop()
    assert is_accepted(app.get("/whoami/", token), app), "the cached result is still valid"
    assert refusals() == [("transport_unreachable", "default", "failure")] * 2


ANSWERS: dict[str, Callable[[Reply], None]] = {
    "client refused": lambda reply: setattr(reply, "status", 401),
    "an error": lambda reply: setattr(reply, "status", 500),
    "no JSON": lambda reply: setattr(reply, "json", None),
    "no `active`": lambda reply: reply.json.pop("active"),
}


def test_invalid_introspection_response_refuses_the_token(op: DemoProvider, app: App, declare: Declare) -> None:
    declare(method="introspection", introspection_cache=0)
    token = app.token()
    for name, spoil in ANSWERS.items():

        def lie(endpoint: str, exchange: MutableExchange, spoil: Callable[[Reply], None] = spoil) -> None:
            if endpoint == "introspection":
                spoil(exchange.reply)

        op.mutate = lie
        assert app.get("/whoami/", token).status_code == 503, name
        op.mutate = None
        assert is_accepted(app.get("/whoami/", token), app)
    assert refusals() == [("introspection_failed", "default", "failure")] * len(ANSWERS)


@pytest.mark.parametrize(("seconds", "status"), [(10.0, 503), (0.2, 200)], ids=["hangs", "slow"])
def test_token_is_refused_in_time_if_introspection_hangs(
    seconds: float, status: int, op: DemoProvider, app: App, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_phi_oidc.contrib.apis.api_tokens.PROVIDER_TIMEOUT_SECONDS", 1.0)
    declare(method="introspection", introspection_cache=0)
    token = app.token()
    over = threading.Event()

    def delay(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "introspection":
            over.wait(seconds)

    op.intercept = delay
    started_at = time.monotonic()
    assert app.get("/whoami/", token).status_code == status
    assert time.monotonic() - started_at < 5
    over.set()
    op.intercept = None
    assert is_accepted(app.get("/whoami/", token), app)
    assert refusals() == [("transport_timeout", "default", "failure")] * (status == 503)


def test_provider_without_introspection_endpoint_refuses_the_token(
    op: DemoProvider, app: App, declare: Declare
) -> None:
    def silent(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "discovery":
            del exchange.reply.json["introspection_endpoint"]

    op.mutate = silent
    declare(method="introspection")
    assert app.get("/whoami/", app.token()).status_code == 503
    declare(method="jwt")
    assert is_accepted(app.get("/whoami/", app.token()), app)


def test_missing_subject_key_refuses_the_token(app: App, settings: Any) -> None:
    token = app.token()
    assert is_accepted(app.get("/whoami/", token), app)
    settings.PHI_OIDC = override_phi_oidc(
        settings.PHI_OIDC, KEYS={"subject": [settings.PHI_OIDC["KEYS"]["audit_mac"][0]]}
    )
    assert app.get("/whoami/", token).status_code == 503
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": []})
    assert app.get("/whoami/", token).status_code == 503
    assert [reason for reason, *_ in refusals()] == ["subject_key_missing", "key_missing"]


def test_token_is_refused_without_a_declared_api(app: App, settings: Any) -> None:
    token = app.token()
    settings.PHI_OIDC = {**settings.PHI_OIDC, "API": {}}
    assert is_invalid(app.get("/whoami/", token))
    settings.PHI_OIDC = {**settings.PHI_OIDC, "API": {"elsewhere": {"audience": API, "method": "jwt"}}}
    assert is_invalid(app.get("/whoami/", token))


def test_jwt_costs_one_select(app: App) -> None:
    token = app.token()
    assert is_accepted(app.get("/whoami/", token), app)
    with CaptureQueriesContext(connections["default"]) as own, CaptureQueriesContext(connections["phi_audit"]) as audit:
        assert is_accepted(app.get("/whoami/", token), app)
    assert [query["sql"][:6] for query in own.captured_queries] == ["SELECT"] * 2, "revoked or not, and the account"
    assert len(audit) == 0


def store_access_token(person: SignedIn, token: str) -> None:
    columns = {"access_token": token, "access_token_digest": compute_token_digest(token)}
    OIDCSession(pk=person.session.pk, **columns).save(update_fields=list(columns))


def revoke_with_session(person: SignedIn, token: str, *, at: datetime | None = None) -> None:
    """End the person's session, which has that access token."""
    store_access_token(person, token)
    assert end_session(person.session.pk, EndReason.LOGOUT, origin=Origin(), now=at or clock.now()) is not None


@pytest.mark.parametrize("is_provider_up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("jwt", [True, False], ids=["JWT", "opaque"])
@pytest.mark.parametrize("method", METHODS)
def test_g11_token_that_the_portal_revoked_is_refused(
    method: str,
    jwt: bool,
    is_provider_up: bool,
    op: DemoProvider,
    app: App,
    declare: Declare,
    sign_in: Callable[[], SignedIn],
) -> None:
    """Before the provider is asked to revoke it, and from the cache of introspection too."""
    if method == "jwt" and not jwt:
        return
    op.register_resource(Resource(API, ["chart.read"], issues_jwt=jwt))
    declare(method=method)
    token, other = app.token(), app.token()
    assert is_accepted(app.get("/whoami/", token), app)
    assert is_accepted(app.get("/whoami/", other), app)
    revoke_with_session(sign_in(), token)
    if not is_provider_up:
        op.stop()
    assert is_invalid(app.get("/whoami/", token))
    assert refusals() == [("token_revoked", "default", "failure")]
    assert is_accepted(app.get("/whoami/", other), app)


def test_g11_revoked_jwt_with_the_other_valid_signature_is_refused(app: App, sign_in: Callable[[], SignedIn]) -> None:
    """The holder of a token makes it of the first one: (r, s) becomes (r, n - s)."""
    token = app.token()
    signing_input, _, encoded = token.rpartition(".")
    signature = decode_b64url(encoded)
    s = ORDER_OF_P256 - int.from_bytes(signature[32:])
    twin = f"{signing_input}.{encode_b64url(signature[:32] + s.to_bytes(32))}"
    assert is_accepted(app.get("/whoami/", twin), app)
    revoke_with_session(sign_in(), token)
    assert [is_invalid(app.get("/whoami/", each)) for each in (token, twin)] == [True, True]


def test_g11_replaced_token_of_a_renewed_session_is_refused_when_the_session_ends(
    app: App, sign_in: Callable[[], SignedIn]
) -> None:
    person, replaced, token = sign_in(), app.token(), app.token()
    store_access_token(person, replaced)
    renewed = renew_session(
        person.session.pk,
        subject_id=person.subject.pk,
        tokens=TokenResponse(
            access_token=token, refresh_token="", id_token="", expires_in=timedelta(minutes=5), lifetime_alert=False
        ),
        id_token=KeptIDToken(claims={}),
        sid="",
        acr="",
        auth_time=None,
        persist_tokens=True,
        origin=Origin(),
        now=clock.now(),
    )
    assert renewed == ()
    assert [is_accepted(app.get("/whoami/", each), app) for each in (replaced, token)] == [True, True]
    revoke_with_session(person, token)
    assert [is_invalid(app.get("/whoami/", each)) for each in (replaced, token)] == [True, True]


def test_g11_revocation_of_another_server_whose_clock_is_ahead_counts(
    app: App, sign_in: Callable[[], SignedIn]
) -> None:
    token = app.token()
    revoke_with_session(sign_in(), token, at=clock.now() + timedelta(seconds=50))
    assert is_invalid(app.get("/whoami/", token))


def test_g11_revoked_token_is_found_by_the_index() -> None:
    with transaction.atomic():
        if connection.vendor == "postgresql":
            connection.cursor().execute("SET LOCAL enable_seqscan = off")
        plan = PendingRevocation.objects.filter(token_digest="0" * 64, created_at__lte=clock.now()).explain()
    assert "phi_oidc_revocation_token" in plan


def test_token_takes_precedence_over_a_session_cookie(
    app: App,
    sign_in: Callable[[], SignedIn],
) -> None:
    other = sign_in()
    token = app.token()
    browser = other.client()
    assert browser.get("/whoami/").json()["user"] == other.user.pk
    assert is_accepted(browser.get("/whoami/", headers={"Authorization": f"Bearer {token}"}), app)
    assert is_invalid(browser.get("/whoami/", headers={"Authorization": f"Bearer {corrupt_signature(token)}"}))
    assert browser.get("/whoami/").json()["user"] == other.user.pk


def test_response_to_a_token_is_not_cached(
    app: App,
    sign_in: Callable[[], SignedIn],
) -> None:
    clinician = sign_in()
    for _ in range(2):
        assert app.get("/cached/", app.token())["Cache-Control"] == "no-store"
        assert SecureClient().get("/cached/").status_code == 401
    assert RAN == ["Cached"] * 2
    for _ in range(2):
        assert clinician.client().get("/cached/").status_code == 200
    assert RAN == ["Cached"] * 3, "a response to a session is cached"


def test_csrf_token_is_required_with_a_cookie_only(
    app: App,
    sign_in: Callable[[], SignedIn],
) -> None:
    other = sign_in()
    browser = SecureClient(enforce_csrf_checks=True)
    browser.cookies = other.client().cookies
    assert browser.get("/whoami/").json()["user"] == other.user.pk
    assert browser.post("/whoami/", {}, "application/json").status_code == 403
    header = {"Authorization": f"Bearer {app.token()}"}
    assert is_accepted(browser.post("/whoami/", {}, "application/json", headers=header), app)


def test_api_refusals_are_throttled_separately_from_sign_ins(app: App, op: DemoProvider) -> None:
    foreign = sign_jwt({"alg": "ES256", "typ": "at+jwt"}, {"iss": "https://x.example"}, op.state.keys["ES256"])
    at = clock._get_system_time().replace(second=5)
    with clock.override_clock(lambda: at):
        for _ in range(MAX_EVENTS_PER_SENDER + 3):
            assert is_invalid(app.get("/whoami/", foreign))
        assert len(refusals()) == MAX_EVENTS_PER_SENDER
    assert flush_refusal_counts(now=at + timedelta(minutes=2)) == 3
    assert not RefusalCount.objects.exists()
    flush()
    events = AuditEvent.objects.filter(reason="iss_invalid").values_list("action", "detail")
    assert {event for event in events if "count" in event[1]} == {
        ("api.refused", '{"count":3}'),
        ("alert.raised", '{"count":3,"rule":"refusal_burst"}'),
    }


def test_refusal_stays_a_refusal_during_an_audit_outage(app: App) -> None:
    token = app.token()

    def fail(*args: Any) -> Any:
        raise OperationalError("the server is unreachable")

    with connections["phi_audit"].execute_wrapper(fail):
        assert is_invalid(app.get("/whoami/", corrupt_signature(token)))
        assert is_accepted(app.get("/whoami/", token), app)
    assert refusals() == []
