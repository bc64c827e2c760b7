"""The actor of a request, its address and its ids."""

import ipaddress
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY as SIGNED_IN
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.test import RequestFactory, override_settings

from django_phi_oidc.audit.request_context import (
    ASSURANCE_KEY,
    SESSION_KEY,
    Actor,
    build_assurance_entry,
    find_oidc_session_id,
    get_client_ip,
    get_request_id,
)
from django_phi_oidc.contrib.apis.access_token import AccessToken
from django_phi_oidc.extensions import delegation_sources

TRUSTED = [ipaddress.ip_network(network) for network in ("127.0.0.1/32", "10.0.0.0/8", "fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.3,10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "<script>", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, ", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "2001:DB8:0::1", "2001:db8::1"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("2001:db8::2", "2001:db8::1", "2001:db8::2"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("fe80::1%eth0", "198.51.100.1", "fe80::1"),
        ("", "198.51.100.1", "198.51.100.1"),
        ("not an address", "198.51.100.1", ""),
    ],
)
def test_client_ip_is_the_nearest_hop_that_is_not_a_trusted_proxy(peer: str, forwarded: str, expected: str) -> None:
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    request = RequestFactory().get("/", REMOTE_ADDR=peer, **headers)
    assert get_client_ip(request, trusted_proxies=TRUSTED) == expected


@pytest.mark.parametrize(("peer", "expected"), [("10.0.0.1", "10.0.0.1"), ("", "")])
def test_client_ip_without_trusted_proxies_ignores_headers(peer: str, expected: str) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR="198.51.100.1")
    assert get_client_ip(request, trusted_proxies=[]) == expected


def test_request_id_is_stable_for_a_request_and_unique() -> None:
    one, other = (RequestFactory().get("/", HTTP_X_REQUEST_ID="chosen by the client") for _ in range(2))
    assert get_request_id(one) == get_request_id(one) != get_request_id(other)
    assert "chosen" not in get_request_id(one)


ACCESS_TOKEN = AccessToken(
    provider="default",
    issuer="https://op.example",
    sub="a-sub",
    client_id="an-app",
    scopes=frozenset(),
    expires_at=datetime(2026, 11, 24, tzinfo=UTC),
)
OIDC_SESSION = "0c1d9c57-8a1b-4f6e-9d3e-0a6f6a7e2b11"


@pytest.mark.parametrize("foreign", ["no-uuid", 7, ["x"], {"x": 1}, None, ""])
def test_session_id_that_is_not_a_uuid_is_ignored(foreign: object) -> None:
    assert find_oidc_session_id({SESSION_KEY: foreign}) is None
    assert str(find_oidc_session_id({SESSION_KEY: OIDC_SESSION})) == OIDC_SESSION
    assert find_oidc_session_id({}) is None


def signed_in_request(*, signed_in: str = "7", **headers: str) -> Any:
    """Return a request of user 7 with an OIDC session; signed_in: the user of its Django session."""
    request = RequestFactory().get("/", **headers)
    request.user = get_user_model()(pk=7)
    request.session = SessionStore()
    request.session._session_cache = {SESSION_KEY: OIDC_SESSION, SIGNED_IN: signed_in}
    return request


def test_from_request_of_a_user_with_a_session_has_both() -> None:
    request = signed_in_request(REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="198.51.100.1")
    with override_settings(PHI_OIDC={"TRUSTED_PROXIES": ["10.0.0.1"]}):
        actor = Actor.from_request(request)
    assert actor.user == request.user
    assert (actor.origin.actor, actor.origin.session) == ("7", OIDC_SESSION)
    assert (actor.origin.client_ip, actor.origin.request_id) == ("198.51.100.1", get_request_id(request))


@pytest.mark.parametrize(("signed_in", "session"), [("7", OIDC_SESSION), ("8", "")])
def test_from_request_with_the_session_of_another_user_has_no_session(signed_in: str, session: str) -> None:
    """As with an API token that is sent together with the cookie of another user."""
    assert Actor.from_request(signed_in_request(signed_in=signed_in)).origin.session == session


def test_from_request_again_returns_the_same_actor() -> None:
    request = signed_in_request()
    assert Actor.from_request(request) is Actor.from_request(request)


@pytest.mark.parametrize(
    "change",
    {
        "user": lambda request: setattr(request, "user", get_user_model()(pk=7)),
        "no user": lambda request: setattr(request, "user", AnonymousUser()),
        "primary key": lambda request: setattr(request.user, "pk", 8),
        "session": lambda request: setattr(request, "session", SessionStore()),
        "session entry": lambda request: request.session.pop(SESSION_KEY),
        "signed-in user": lambda request: request.session.update({SIGNED_IN: "8"}),
        "assurance": lambda request: request.session.update(
            {ASSURANCE_KEY: build_assurance_entry(acr="2", auth_time=None)}
        ),
        "peer": lambda request: request.META.update(REMOTE_ADDR="198.51.100.1"),
        "access token": lambda request: setattr(request, "auth", ACCESS_TOKEN),
    }.items(),
    ids=lambda item: item[0],
)
def test_from_request_after_a_change_returns_another_actor(change: tuple[str, Callable[[Any], object]]) -> None:
    request = signed_in_request()
    before = Actor.from_request(request)
    change[1](request)
    after = Actor.from_request(request)
    assert after is not before
    assert (after.user is not before.user) or after != before


def test_from_request_before_any_middleware_is_anonymous() -> None:
    actor = Actor.from_request(RequestFactory().get("/"))
    assert actor.user == AnonymousUser()
    assert (actor.origin.actor, actor.origin.session) == ("", "")


@pytest.fixture
def _acts_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app whose users act for the account that their session names."""
    monkeypatch.setattr(delegation_sources, "_items", [])
    delegation_sources.register(lambda user, session, request: "")
    delegation_sources.register(lambda user, session, request: session.get("acts_for", ""))
    delegation_sources.register(lambda user, session, request: "another")


def test_without_a_delegation_source_a_user_acts_for_itself() -> None:
    request = signed_in_request()
    request.session["acts_for"] = "12"
    assert Actor.from_request(request).origin.on_behalf_of == ""


@pytest.mark.usefixtures("_acts_for")
def test_first_answer_of_the_delegation_sources_is_the_account_that_the_user_acts_for() -> None:
    request = signed_in_request()
    request.session["acts_for"] = "12"
    origin = Actor.from_request(request).origin
    assert (origin.actor, origin.on_behalf_of) == ("7", "12")
    request.session["acts_for"] = "13"
    assert Actor.from_request(request).origin.on_behalf_of == "13"


@pytest.mark.usefixtures("_acts_for")
def test_delegation_sources_do_not_see_the_session_of_another_user() -> None:
    request = signed_in_request(signed_in="8")
    request.session["acts_for"] = "12"
    assert Actor.from_request(request).origin.on_behalf_of == "another"


@pytest.mark.usefixtures("_acts_for")
def test_user_who_is_not_signed_in_acts_for_no_account() -> None:
    request = signed_in_request()
    request.user = AnonymousUser()
    assert Actor.from_request(request).origin.on_behalf_of == ""
