"""The search for leaked secrets finds them in each place, and a Redis used as broker and cache contains none."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.redis import RedisCache

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.sessions.models import OIDCSession, RevocationStatus
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.installation import Installation
from tests.integration.journeys.logout import statuses, stopped
from tests.integration.journeys.tcp_relay import relay_to
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, client, declaration

pytestmark = [pytest.mark.redis, pytest.mark.django_db(**EVERYTHING)]

IDLE = timedelta(minutes=15)
PLACES = ("log", "broker", "session", "cache", "Redis", "URL of the portal", "redirect", "URL of the provider")


@pytest.mark.parametrize("place", PLACES)
def test_leaks_finds_each_secret_in_each_place(
    place: str, op: DemoProvider, portal: str, tmp_path: Path, redis_url: str
) -> None:
    with relay_to(redis_url) as relay:
        installation = Installation(tmp_path, {}, relay, redis=redis_url if place == "Redis" else "")
        browser = installation.browser(portal)
        browser.sign_in(op)
        assert browser.user() != ""
        (session_key,) = browser.session_keys
        logout = browser.post("/oidc/logout/")
        assert browser.visited_urls[-2:] == ["/oidc/logout/", logout.location]
        assert f"id_token_hint={op.id_tokens[0]}" in logout.location, "the hint is allowed there"
        secrets = {
            **{token.kind: token.value for token in op.tokens},
            "ID token": op.id_tokens[0],
            "payload of an ID token": op.id_tokens[0].split(".")[1],
            "code": op.last_grant.code,
            "nonce": op.last_grant.nonce,
            "sub": op.last_grant.sub,
            "sid": op.last_grant.sid,
            "client secret": op.state.clients["portal"].client_secret,
            "Django session key": session_key,
            "claim": "1984-03-09",
            "part of a claim": "Tulegatan 7B",
        }
        assert installation.leaks(op) == []
        for secret in secrets.values():
            write_secret(secret, place, installation, op)
        assert set(installation.leaks(op)) == set(secrets.values())


def write_secret(secret: str, place: str, installation: Installation, op: DemoProvider) -> None:
    (browser,) = installation.browsers
    name = randomness.token_b64url(8)
    match place:
        case "log":
            (installation.folder / f"{name}.log").write_text(f"INFO: {secret}\n")
        case "broker":
            installation.send("a task", secret)
        case "session":
            session = SessionStore()
            session["secret"] = secret
            session.save()
        case "cache":
            FileBasedCache(str(installation.folder / "cache"), {}).set(name, {"secret": secret})
        case "Redis":
            RedisCache(installation.redis, {"KEY_PREFIX": installation.queue}).set(name, {"secret": secret})
        case "URL of the portal":
            browser.get(f"/portal/home/?code={quote(secret)}")
        case "redirect":
            browser.visited_urls.append(f"/portal/home/?next={quote(f'/?state={quote(secret)}')}")
        case "URL of the provider":
            assert Browser(op.issuer).get(f"/jwks?id_token_hint={quote(secret)}").status == 200


@pytest.mark.parametrize("engine", ["cached_db", "cache"])
def test_redis_as_broker_and_cache_holds_no_secret_and_no_ended_session(
    engine: str, op: DemoProvider, tmp_path: Path, redis_url: str
) -> None:
    with relay_to(redis_url) as relay:
        phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
        installation = Installation(tmp_path, phi_oidc, relay, engine=engine, redis=relay.url)
        with installation.portal() as base, installation.worker():
            op.register_client(client(base))
            browser = installation.browser(base)
            assert browser.sign_in(op).status == 302
            assert browser.user() != ""
            assert browser.get("/birthdate/").body == "1984-03-09"
            (entry,) = installation.cached().values()
            assert entry["phi_oidc_session"] == str(OIDCSession.objects.get().pk)
            assert installation.leaks(op) == []

            with stopped(op):
                assert browser.post("/oidc/logout/").status == 200, "the page that leads to the provider"
            assert browser.user() == ""
            assert installation.cached() == {}

            assert installation.browser(base).sign_in(op, "jonas").status == 302
            assert len(installation.cached()) == 1
            installation.set_clock(clock.now() + IDLE)
            assert installation.run("phi_oidc.end_overdue")
            assert installation.cached() == {}, "ended by another process"
            assert installation.run()
            assert statuses() == {RevocationStatus.DONE}
            assert op.tokens
            assert not op.active_tokens
            assert all(word in relay.passed for word in (b"django.contrib.sessions", b"phi_oidc.sweep_revocations"))
            assert installation.leaks(op) == []
