"""A valid access token for the host project, from a provider that rotates refresh tokens and detects their reuse."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.models import Session
from django.db import connection, connections, transaction
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.request_context import SESSION_KEY
from django_phi_oidc.errors import KeyMissing, RefreshInsideTransaction, TokenExpired
from django_phi_oidc.oidc.remedies import REMEDIES
from django_phi_oidc.sessions import access_tokens, token_refresh
from django_phi_oidc.sessions.access_tokens import get_access_token
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.sessions.token_refresh import LEASE_DURATION
from django_phi_oidc.testing.mock_provider import (
    DemoProvider,
    MutableExchange,
    Reply,
    corrupt_signature,
    create_signing_key,
    sign_jwt,
    stream_slowly,
)
from django_phi_oidc.testing.mock_provider.signing import parse_unverified
from tests.support.databases import child_environment
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import _http_op, _logs_hold_no_secret, browser, declaration, events, op, portal
from tests.support.session_fixtures import wait_for

__all__ = ["_http_op", "_logs_hold_no_secret", "browser", "op", "portal"]  # fixtures
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

Tampering = Callable[[MutableExchange, dict[str, Any]], Any]
EXPIRED, EXPIRING, LIVE = -1, 29, 32
"""Seconds until the stored access token expires."""


@pytest.fixture
def session(op: DemoProvider, browser: Browser) -> uuid.UUID:
    """Return the id of the session of a new sign-in whose access token has expired."""
    assert browser.sign_in(op).status == 302
    age(EXPIRED)
    return row().pk


def age(seconds: float) -> None:
    OIDCSession.objects.update(access_token_expires_at=clock.now() + timedelta(seconds=seconds))


def row() -> OIDCSession:
    return OIDCSession.objects.get()


def opened(column: str) -> str:
    return str(OIDCSession._meta.get_field(column).decrypt(row()))


def refreshes(op: DemoProvider) -> list[Mapping[str, str]]:
    """Return the parameters of the refresh requests so far."""
    requests = [request.parameters for request in op.requests if request.path == "/token"]
    return [parameters for parameters in requests if parameters["grant_type"] == "refresh_token"]


def revoked(op: DemoProvider) -> list[str]:
    """Return the values of the tokens that the provider was asked to revoke."""
    return [request.parameters["token"] for request in op.requests if request.path == "/revoke"]


def at_refresh(endpoint: str, act: Callable[[MutableExchange], Any]) -> Callable[[str, MutableExchange], Any]:
    """Return a hook of the provider that runs only at that endpoint of a refresh."""

    def hook(at: str, exchange: MutableExchange) -> Any:
        of_refresh = exchange.parameters.get("grant_type") == "refresh_token"
        return act(exchange) if at == endpoint and of_refresh else None

    return hook


class BlockedRefresh:
    """Blocks a refresh at the provider, before or after it is processed, until released."""

    def __init__(self, answer: Reply | None = None) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        self.answer = answer

    def __call__(self, exchange: MutableExchange) -> Reply | None:
        self.reached.set()
        self.released.wait(20)
        return self.answer


class Caller(threading.Thread):
    """Gets a token in its own thread."""

    def __init__(self, session: uuid.UUID) -> None:
        super().__init__()
        self.session, self.got = session, ""
        self.start()

    def run(self) -> None:
        try:
            self.got = get_access_token(self.session)
        except TokenExpired as error:
            self.got = error.code
        finally:
            connections.close_all()


@contextmanager
def callers(op: DemoProvider, session: uuid.UUID, count: int) -> Iterator["subprocess.Popen[str]"]:
    """Start access_token_process.py with the databases of the test and wait until it is ready."""
    environment = {
        **child_environment(os.environ, django_settings.DATABASES),
        "DJANGO_SETTINGS_MODULE": "tests.support.portal_process_settings",
        "TEST_PHI_OIDC": json.dumps({"PROVIDERS": {"default": declaration(op)}}),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    command = [sys.executable, str(Path(__file__).with_name("access_token_process.py")), str(session), str(count)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def start(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.parametrize("seconds", [LIVE, None])
def test_valid_access_token_is_returned_without_a_request_to_the_provider(
    seconds: int | None, op: DemoProvider, session: uuid.UUID
) -> None:
    OIDCSession.objects.update(access_token_expires_at=None) if seconds is None else age(seconds)
    assert get_access_token(session) == opened("access_token")
    assert get_access_token(row()) == opened("access_token")
    assert refreshes(op) == []


def test_valid_access_token_takes_one_query(session: uuid.UUID, django_assert_num_queries: Any) -> None:
    age(LIVE)
    with django_assert_num_queries(1):
        get_access_token(session)


@pytest.mark.parametrize("seconds", [EXPIRING, EXPIRED])
def test_access_token_that_expires_soon_is_refreshed_and_stored(
    seconds: int, op: DemoProvider, session: uuid.UUID
) -> None:
    age(seconds)
    old = opened("access_token")
    new = get_access_token(session)
    assert new not in ("", old)
    assert op.is_token_active(new)
    assert (opened("access_token"), row().refresh_lease_until, row().ended_at) == (new, None, None)
    expires_in = (row().access_token_expires_at or clock.now()) - clock.now()
    assert timedelta(minutes=9) < expires_in <= timedelta(minutes=10)
    assert get_access_token(session) == new
    assert len(refreshes(op)) == 1
    assert revoked(op) == [], "with the old access token the provider may revoke the new refresh token"


def test_refresh_sends_the_latest_refresh_token_and_none_twice(op: DemoProvider, session: uuid.UUID) -> None:
    stored = [opened("refresh_token")]
    for _ in range(3):
        age(EXPIRED)
        get_access_token(session)
        stored.append(opened("refresh_token"))
    assert [parameters["refresh_token"] for parameters in refreshes(op)] == stored[:3]
    assert len(set(stored)) == 4
    assert op.is_token_active(stored[3])


def test_refresh_stores_the_new_id_token_for_the_logout_hint(
    op: DemoProvider, session: uuid.UUID, browser: Browser
) -> None:
    first = opened("id_token")
    get_access_token(session)
    new = opened("id_token")
    assert new != first
    page = browser.post("/oidc/logout/")
    assert f"id_token_hint={new}" in page.location
    assert op.active_tokens == []


def test_refresh_without_new_refresh_and_id_token_keeps_the_old_ones(op: DemoProvider, session: uuid.UUID) -> None:
    def leave_out(exchange: MutableExchange) -> None:
        del exchange.reply.json["refresh_token"], exchange.reply.json["id_token"]

    before = opened("refresh_token"), opened("id_token")
    op.mutate = at_refresh("token", leave_out)
    assert get_access_token(session) == opened("access_token")
    assert (opened("refresh_token"), opened("id_token")) == before


@pytest.mark.parametrize("personal", [{}, {"email": "amina@example.test"}])
@pytest.mark.parametrize("nonce", ["of the sign-in", "another"])
def test_g1_each_refreshed_id_token_is_compared_with_that_of_the_sign_in(
    nonce: str, personal: dict[str, str], op: DemoProvider, session: uuid.UUID
) -> None:
    """A refreshed ID Token may lack the nonce, and may have claims about the person, so that it is not kept."""
    original = json.loads(opened("id_token_claims"))
    op.mutate = at_refresh("id_token", lambda exchange: exchange.claims.update(personal))
    assert get_access_token(session) == opened("access_token")
    age(EXPIRED)
    sent = {**personal, "nonce": original["nonce"] if nonce == "of the sign-in" else nonce}
    op.mutate = at_refresh("id_token", lambda exchange: exchange.claims.update(sent))
    if nonce == "another":
        with pytest.raises(TokenExpired):
            get_access_token(session)
        assert row().end_reason == "refresh_mismatch"
    else:
        assert get_access_token(session) == opened("access_token")
        assert json.loads(opened("id_token_claims")) == original


def test_access_token_of_a_request_is_the_one_of_its_session(session: uuid.UUID) -> None:
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    request.session = {SESSION_KEY: str(session)}  # type: ignore[assignment]  # all that is read of it
    assert get_access_token(request) == opened("access_token")
    request.session = {}  # type: ignore[assignment]
    with pytest.raises(TokenExpired):
        get_access_token(request)


def test_access_token_without_refresh_token_is_returned_until_it_expires(op: DemoProvider, session: uuid.UUID) -> None:
    OIDCSession.objects.update(refresh_token=None)
    age(EXPIRING)
    assert get_access_token(session) == opened("access_token")
    age(EXPIRED)
    with pytest.raises(TokenExpired):
        get_access_token(session)
    assert refreshes(op) == []
    assert row().ended_at is None


def test_access_token_of_an_ended_or_unknown_session_is_refused(session: uuid.UUID, browser: Browser) -> None:
    assert get_access_token(session)
    browser.post("/oidc/logout/")
    for ended in (session, row(), uuid.uuid4()):
        with pytest.raises(TokenExpired) as caught:
            get_access_token(ended)
        assert caught.value.code == "token_expired"


def claim(name: str, value: Any) -> Tampering:
    def bend(exchange: MutableExchange, original: dict[str, Any]) -> None:
        exchange.claims[name] = value(original) if callable(value) else value

    return bend


def without(name: str) -> Tampering:
    def bend(exchange: MutableExchange, original: dict[str, Any]) -> None:
        exchange.claims.pop(name, None)

    return bend


def header(**members: Any) -> Tampering:
    return lambda exchange, original: exchange.header.update(members)


def foreign_key(exchange: MutableExchange, original: dict[str, Any]) -> None:
    exchange.key = create_signing_key("RS256", kid=exchange.header["kid"])


def damage(exchange: MutableExchange, original: dict[str, Any]) -> None:
    exchange.token = corrupt_signature(sign_jwt(exchange.header, exchange.claims, exchange.key))  # type: ignore[arg-type]


def unchanged(exchange: MutableExchange, original: dict[str, Any]) -> None:
    """Change nothing."""


def with_second_audience(exchange: MutableExchange, original: dict[str, Any]) -> None:
    exchange.claims |= {"aud": ["portal", "api"], "azp": "portal"}


LOGOUT = {"http://schemas.openid.net/event/backchannel-logout": {}}
MISMATCHES: dict[str, tuple[Tampering, Tampering]] = {
    # case: refused, accepted
    "iss": (claim("iss", "https://elsewhere.example"), claim("iss", lambda original: original["iss"])),
    "sub": (claim("sub", "another person"), claim("sub", lambda original: original["sub"])),
    "sub missing": (without("sub"), unchanged),
    "aud": (claim("aud", "another client"), claim("aud", "portal")),
    "aud and one more": (with_second_audience, unchanged),
    "azp": (claim("azp", "portal"), without("azp")),
    "auth_time": (
        claim("auth_time", lambda original: original["auth_time"] + 1),
        claim("auth_time", lambda original: original["auth_time"]),
    ),
    "auth_time null": (claim("auth_time", None), unchanged),
    "nonce": (claim("nonce", "another"), claim("nonce", lambda original: original["nonce"])),
    "exp": (claim("exp", 1), unchanged),
    "iat": (claim("iat", 1), unchanged),
    "at_hash": (claim("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"), without("at_hash")),
    "logout token": (claim("events", LOGOUT), unchanged),
    "signature": (damage, unchanged),
    "key": (foreign_key, unchanged),
    "kid": (header(kid="unknown"), unchanged),
    "alg none": (header(alg="none"), header(alg="RS256")),
    "alg HS256": (header(alg="HS256"), header(alg="RS256")),
}


@pytest.mark.parametrize(("refused", "accepted"), MISMATCHES.values(), ids=MISMATCHES)
def test_refresh_with_another_id_token_ends_the_session_and_revokes_all_tokens(
    refused: Tampering, accepted: Tampering, op: DemoProvider, session: uuid.UUID, settings: Any
) -> None:
    settings.PHI_OIDC = {
        **settings.PHI_OIDC,
        "PROVIDERS": {"default": declaration(op, trusted_audiences=["api"])},
    }
    original = parse_unverified(opened("id_token"))[1]
    op.mutate = at_refresh("id_token", lambda exchange: accepted(exchange, original))
    assert op.is_token_active(get_access_token(session))
    OIDCSession.objects.update(access_token_expires_at=clock.now())
    op.mutate = at_refresh("id_token", lambda exchange: refused(exchange, original))
    with pytest.raises(TokenExpired):
        get_access_token(session)
    assert row().end_reason == "refresh_mismatch"
    assert (row().access_token, row().refresh_token, row().id_token) == (None, None, None)
    assert Session.objects.count() == 0
    assert [event.reason for event in events(action="session.ended")] == ["refresh_mismatch"]
    assert op.active_tokens == []
    newest = [token.value for token in op.tokens[-2:]]
    assert set(newest) <= set(revoked(op)), "not only by the provider, with what it knows of their family"
    assert len(refreshes(op)) == 2


def test_refresh_with_invalid_grant_ends_the_session(op: DemoProvider, session: uuid.UUID) -> None:
    assert get_access_token(session)
    age(EXPIRING)
    with op.state.lock:
        op.last_grant.revoked = True
    with pytest.raises(TokenExpired):
        get_access_token(session)
    assert row().end_reason == "invalid_grant"
    assert [event.reason for event in events(action="session.ended")] == ["invalid_grant"]
    # The response of the provider is not believed. The third one is the access token of the sign-in.
    assert len(revoked(op)) == 3
    assert Session.objects.count() == 0


def error(status: int, code: str) -> Callable[[MutableExchange], Reply]:
    return lambda exchange: Reply(status=status, json={"error": code})


PASSING: dict[str, Callable[[MutableExchange], Reply]] = {
    "500": lambda exchange: Reply(status=500),
    "500 invalid_grant": error(500, "invalid_grant"),
    "503": lambda exchange: Reply(status=503, headers={"Retry-After": "1"}),
    "429": lambda exchange: Reply(status=429),
    "401 invalid_client": error(401, "invalid_client"),
    "400 unauthorized_client": error(400, "unauthorized_client"),
    "HTML": lambda exchange: Reply(headers={"Content-Type": "text/html"}, body=b"<h1>Back soon</h1>"),
    "redirect": lambda exchange: Reply(status=302, redirect_to="https://elsewhere.example/"),
    "cut off": lambda exchange: Reply(raw=()),
    "hanging": lambda exchange: Reply(raw=hanging()),
    "dripping": lambda exchange: Reply(raw=stream_slowly(Reply(json={"access_token": "x" * 99}), pause_seconds=0.1)),
}


def hanging() -> Iterator[bytes]:
    time.sleep(3)
    yield b""


@pytest.mark.parametrize("answer", PASSING.values(), ids=PASSING)
def test_refresh_with_a_faulty_provider_ends_no_session(
    answer: Callable[[MutableExchange], Reply], op: DemoProvider, session: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_tokens, "CALL_SECONDS", 0.6)
    old = opened("access_token")
    op.intercept = at_refresh("token", answer)
    age(EXPIRING)
    started = time.monotonic()
    assert get_access_token(session) == old
    age(EXPIRED)
    with pytest.raises(TokenExpired):
        get_access_token(session)
    assert time.monotonic() - started < 3.5
    assert (row().ended_at, row().refresh_lease_until) == (None, None)
    assert revoked(op) == []
    op.intercept = None
    assert get_access_token(session) not in ("", old)


@pytest.mark.parametrize(
    ("sent", "named", "key"),
    [
        ("unauthorized_client", "unauthorized_client", "unauthorized_client"),
        ("invalid_grant", "invalid_grant", "invalid_grant"),
        ("the token of Jane", "other", "token_error"),
    ],
)
def test_refused_refresh_is_logged_with_the_error_of_the_provider_and_the_cure(
    sent: str, named: str, key: str, op: DemoProvider, session: uuid.UUID, caplog: pytest.LogCaptureFixture
) -> None:
    op.intercept = at_refresh("token", error(400, sent))
    age(EXPIRED)
    with pytest.raises(TokenExpired):
        get_access_token(session)
    (line,) = [record.getMessage() for record in caplog.records if "was not refreshed" in record.getMessage()]
    answered = f"token_error: The token endpoint answered 400, error {named} (RFC 6749 5.2)."
    assert line == f"Session {session} was not refreshed: {answered} {REMEDIES[key]}"
    ended = [event.reason for event in events(action="session.ended")]
    assert ended == ([named] if named == "invalid_grant" else [])


def test_refresh_with_an_unavailable_provider_ends_no_session(op: DemoProvider, session: uuid.UUID) -> None:
    old = opened("access_token")
    age(EXPIRING)
    op.stop()
    try:
        assert get_access_token(session) == old
        age(EXPIRED)
        with pytest.raises(TokenExpired):
            get_access_token(session)
    finally:
        op.start()
    assert get_access_token(session) not in ("", old)


@pytest.mark.parametrize("endpoint", ["discovery", "jwks"])
def test_refresh_token_is_not_sent_when_the_response_could_not_be_verified(
    endpoint: str, op: DemoProvider, session: uuid.UUID, settings: Any
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC}  # a process that knows nothing yet
    op.intercept = lambda at, exchange: Reply(status=503) if at == endpoint else None
    with pytest.raises(TokenExpired):
        get_access_token(session)
    assert refreshes(op) == []
    assert (row().ended_at, row().refresh_lease_until) == (None, None)
    op.intercept = None
    assert get_access_token(session)


def test_refresh_with_an_undeclared_provider_ends_no_session(session: uuid.UUID, settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {}}
    with pytest.raises(TokenExpired):
        get_access_token(session)
    assert (row().ended_at, row().refresh_lease_until) == (None, None)


MISSHAPEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "token_type": lambda members: members.update(token_type="DPoP"),
    "lifetime": lambda members: members.update(expires_in=7 * 24 * 3600),
    "no id_token": lambda members: members.update(id_token=""),
    "wrapped": lambda members: [members.update(data=dict(members)), members.pop("access_token")],
}


@pytest.mark.parametrize("spoil", MISSHAPEN.values(), ids=MISSHAPEN)
def test_refresh_with_a_refused_response_revokes_its_tokens(
    spoil: Callable[[dict[str, Any]], Any], op: DemoProvider, session: uuid.UUID
) -> None:
    assert get_access_token(session)
    age(EXPIRED)
    op.mutate = at_refresh("token", lambda exchange: spoil(exchange.reply.json) and None)
    before = opened("access_token"), opened("refresh_token")
    with pytest.raises(TokenExpired):
        get_access_token(session)
    assert (opened("access_token"), opened("refresh_token")) == before
    assert (row().ended_at, row().refresh_lease_until) == (None, None)
    newest = [token.value for token in op.tokens[-2:]]
    assert sorted(revoked(op)) == sorted(newest)
    assert not any(map(op.is_token_active, newest))


def test_logout_during_a_refresh_does_not_wait_and_the_new_tokens_are_revoked(
    op: DemoProvider, session: uuid.UUID, browser: Browser
) -> None:
    held = BlockedRefresh()
    op.mutate = at_refresh("token", held)
    caller = Caller(session)
    assert held.reached.wait(5)
    started = time.monotonic()
    assert browser.post("/oidc/logout/").status == 302
    assert time.monotonic() - started < 2
    assert row().end_reason == "logout"
    assert caller.is_alive()
    held.released.set()
    caller.join()
    assert caller.got == "token_expired"
    assert (row().access_token, row().refresh_token, row().id_token) == (None, None, None)
    assert len(op.tokens) == 4
    assert sorted(revoked(op)) == sorted(token.value for token in op.tokens), "each once"
    assert op.active_tokens == []
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {"done"}


def test_logout_during_a_refresh_of_an_unrotated_token_revokes_it_once(
    op: DemoProvider, session: uuid.UUID, browser: Browser
) -> None:
    held, same = BlockedRefresh(), opened("refresh_token")

    def give_the_same(exchange: MutableExchange) -> None:
        exchange.reply.json["refresh_token"] = same
        held(exchange)

    op.mutate = at_refresh("token", give_the_same)
    caller = Caller(session)
    assert held.reached.wait(5)
    browser.post("/oidc/logout/")
    held.released.set()
    caller.join()
    assert revoked(op).count(same) == 1
    assert op.active_tokens == []


def test_caller_with_an_expired_lease_keeps_the_tokens_of_another_caller(op: DemoProvider, session: uuid.UUID) -> None:
    held, spent = BlockedRefresh(), opened("refresh_token")
    op.mutate = at_refresh("token", held)
    late = Caller(session)
    assert held.reached.wait(5)
    op.mutate = None
    # As at a provider that does not rotate.
    op.state.tokens[spent].used = False
    with clock.override_clock(lambda: after(LEASE_DURATION)):
        new = get_access_token(session)
    held.released.set()
    late.join()
    assert late.got == new == opened("access_token")
    issued = [token.value for token in op.tokens]
    assert issued[4] == new
    assert sorted(revoked(op)) == sorted(issued[2:4]), "what the late one was given, and nothing else"


def after(time_span: timedelta) -> Any:
    """Return the time that many seconds later."""
    return REAL_NOW() + time_span


REAL_NOW = clock._get_system_time


@pytest.mark.parametrize("acted", [False, True], ids=["before the provider acted", "after it acted"])
def test_lease_of_a_killed_caller_expires(
    acted: bool, op: DemoProvider, session: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = BlockedRefresh(answer=Reply(status=503))
    setattr(op, "mutate" if acted else "intercept", at_refresh("token", held))
    with callers(op, session, 1) as process:
        start(process)
        assert held.reached.wait(20)
        os.kill(process.pid, signal.SIGKILL)
    held.released.set()
    op.mutate = op.intercept = None
    monkeypatch.setattr(access_tokens, "CALL_SECONDS", 0.3)
    with pytest.raises(TokenExpired):
        get_access_token(session)
    assert len(refreshes(op)) == 1
    monkeypatch.undo()
    with clock.override_clock(lambda: after(LEASE_DURATION)):
        if not acted:
            assert op.is_token_active(get_access_token(session))
        else:
            # The new tokens are lost, and the provider takes the used refresh token for a stolen one.
            with pytest.raises(TokenExpired):
                get_access_token(session)
            assert row().end_reason == "invalid_grant"
            assert op.active_tokens == []
    assert len(refreshes(op)) == 2


def test_c5_lease_of_a_clock_that_was_ahead_blocks_no_refresh(op: DemoProvider, session: uuid.UUID) -> None:
    OIDCSession.objects.update(refresh_lease_until=after(timedelta(days=3)))
    assert op.is_token_active(get_access_token(session))
    assert len(refreshes(op)) == 1
    assert row().refresh_lease_until is None


def test_twenty_callers_in_two_processes_make_one_refresh_request(op: DemoProvider, session: uuid.UUID) -> None:
    op.intercept = at_refresh("token", lambda exchange: time.sleep(0.3))
    with callers(op, session, 10) as first, callers(op, session, 10) as second:
        start(first)
        start(second)
        got = [json.loads(process.communicate(timeout=30)[0]) for process in (first, second)]
    assert len(refreshes(op)) == 1
    new = opened("access_token")
    assert op.is_token_active(new)
    assert got == [[hashlib.sha256(new.encode()).hexdigest()] * 10] * 2


def test_callers_that_waited_for_a_failed_refresh_send_no_request(
    op: DemoProvider, session: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = BlockedRefresh(answer=Reply(status=503))
    op.intercept = at_refresh("token", held)
    first = Caller(session)
    assert held.reached.wait(5)
    looks: Counter[int] = Counter()
    find = token_refresh.find_session_with_tokens

    def counted(session_id: uuid.UUID) -> OIDCSession | None:
        looks[threading.get_ident()] += 1
        return find(session_id)

    monkeypatch.setattr(token_refresh, "find_session_with_tokens", counted)
    others = [Caller(session) for _ in range(5)]
    # At its third query, each caller has seen the lease of another one.
    wait_for(lambda: len([count for count in looks.values() if count >= 3]) == 5)
    held.released.set()
    for caller in (first, *others):
        caller.join()
    assert {caller.got for caller in (first, *others)} == {"token_expired"}
    assert len(refreshes(op)) == 1


def test_caller_with_an_outdated_row_returns_the_refreshed_token(op: DemoProvider, session: uuid.UUID) -> None:
    observed = row()
    # A token that expires immediately, so that every new query would refresh it.
    op.mutate = at_refresh("token", lambda exchange: exchange.reply.json.update(expires_in=5))
    new = get_access_token(session)
    late = access_tokens._refresh_tokens(observed, origin=Origin())
    assert OIDCSession._meta.get_field("access_token").decrypt(late) == new
    assert len(refreshes(op)) == 1
    assert get_access_token(session) != new
    assert len(refreshes(op)) == 2


@pytest.mark.sqlite
def test_refresh_inside_a_transaction_on_sqlite_is_refused_and_a_valid_token_is_returned(
    op: DemoProvider, session: uuid.UUID
) -> None:
    with transaction.atomic():
        with pytest.raises(RefreshInsideTransaction) as caught:
            get_access_token(session)
        age(LIVE)
        assert get_access_token(session) == opened("access_token")
    assert caught.value.code == "refresh_inside_transaction"
    assert refreshes(op) == []
    assert row().refresh_lease_until is None


@pytest.mark.postgresql
def test_refresh_inside_a_transaction_on_postgresql_survives_its_rollback(op: DemoProvider, session: uuid.UUID) -> None:
    with transaction.atomic():
        get_user_model().objects.create_user("rolled-back")
        new = get_access_token(session)
        transaction.set_rollback(True)
    assert not get_user_model().objects.filter(username="rolled-back").exists()
    assert op.is_token_active(new)
    assert (opened("access_token"), len(refreshes(op))) == (new, 1)
    assert not refresh_threads()


@pytest.mark.postgresql
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_refresh_inside_an_isolated_transaction_returns_the_new_token(level: str, session: uuid.UUID) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        old = opened("access_token")
        new = get_access_token(session)
        assert opened("access_token") == old
        # This transaction sees the expired token, although it was refreshed.
        assert get_access_token(session) == new
    assert opened("access_token") == new


@pytest.mark.postgresql
@pytest.mark.parametrize(("seconds", "raises"), [(EXPIRED, True), (EXPIRING, False)])
def test_refresh_inside_a_transaction_that_locks_the_session_ends_in_time(
    seconds: int, raises: bool, op: DemoProvider, session: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_tokens, "CALL_SECONDS", 0.5)
    age(seconds)
    started = time.monotonic()
    with transaction.atomic():
        list(OIDCSession.objects.select_for_update())
        if raises:
            with pytest.raises(TokenExpired):
                get_access_token(session)
        else:
            assert get_access_token(session) == opened("access_token")
        assert refreshes(op) == []
    assert time.monotonic() - started < 3
    # The thread may continue for a moment after the row is unlocked.
    wait_for(lambda: not refresh_threads())
    assert get_access_token(session)
    assert len(refreshes(op)) == 1


@pytest.mark.postgresql
def test_refresh_inside_a_transaction_with_locks_that_its_end_needs_does_not_deadlock(
    op: DemoProvider, session: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_tokens, "CALL_SECONDS", 0.5)
    with op.state.lock:
        op.last_grant.revoked = True
    with transaction.atomic():
        list(Session.objects.select_for_update())
        started = time.monotonic()
        with pytest.raises(TokenExpired):
            get_access_token(session)
        assert time.monotonic() - started < 3
        assert refresh_threads()
    wait_for(lambda: not refresh_threads())
    assert row().end_reason == "invalid_grant"
    assert Session.objects.count() == 0


def refresh_threads() -> list[threading.Thread]:
    """Return the threads that refresh next to a transaction."""
    return [thread for thread in threading.enumerate() if thread.name == "phi_oidc.refresh"]


@pytest.mark.postgresql
@pytest.mark.without_pooler("it ends a session of the server, which may also be that of the statement")
def test_refresh_is_stored_after_a_restart_of_the_database(op: DemoProvider, session: uuid.UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()

    def terminate(exchange: MutableExchange) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
        connections.close_all()

    op.mutate = at_refresh("token", terminate)
    new = get_access_token(session)
    assert op.is_token_active(new)
    assert (opened("access_token"), row().refresh_lease_until) == (new, None)


def test_refresh_that_cannot_be_stored_revokes_its_tokens_and_shows_none(
    op: DemoProvider, session: uuid.UUID, settings: Any
) -> None:
    away: list[bool] = []
    ring = settings.PHI_OIDC["KEYS"]["encryption"]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": lambda: [] if away else ring})
    op.mutate = at_refresh("token", lambda exchange: away.append(True))
    with pytest.raises(KeyMissing) as failed:
        get_access_token(session)
    away.clear()
    newest = [token.value for token in op.tokens[-2:]]
    assert sorted(revoked(op)) == sorted(newest)
    assert not any(map(op.is_token_active, newest))
    # Without the frame of this test, which contains all tokens.
    report = ExceptionReporter(RequestFactory().get("/"), failed.type, failed.value, failed.tb.tb_next)
    displayed = report.get_traceback_html() + report.get_traceback_text()
    assert "in store_tokens" in displayed, "the report is about this fault"
    assert [token.value for token in op.tokens if token.value in displayed] == []
    assert opened("id_token") not in displayed


@pytest.fixture
def fhir_server() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of an API, and the authorization headers that it received."""
    sent: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(str(self.headers["Authorization"]))
            self.send_response(200 if self.path == "/Observation" else 404)
            self.end_headers()
            self.wfile.write(b'{"resourceType": "Bundle"}')

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    thread.join()
    server.server_close()


def test_documented_example_calls_an_api_with_the_token(
    op: DemoProvider, session: uuid.UUID, fhir_server: tuple[str, list[str]]
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "call-an-api.md").read_text()
    match = re.search(r"<!-- tested: view -->\n```python\n(.*?)```", page, re.DOTALL)
    assert match
    project: dict[str, Any] = {"__name__": "hospital"}
    exec(match[1], project)
    project["FHIR"], sent = fhir_server
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    request.session = {SESSION_KEY: str(session)}  # type: ignore[assignment]  # all that is read of it
    response = project["results"](request)
    assert (response.status_code, response.content) == (200, b'{"resourceType": "Bundle"}')
    assert sent == [f"Bearer {opened('access_token')}"]
    project["http"].clear()
    OIDCSession.objects.update(ended_at=clock.now())
    assert project["results"](request).status_code == 503
    assert len(sent) == 1
