"""Sessions of other authentication backends: found, ended once, and their tokens revoked where they were issued."""

import json
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from mozilla_django_oidc.auth import OIDCAuthenticationBackend as MozillaBackend

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.request_context import LOCAL_SIGN_IN_KEY
from django_phi_oidc.conf import idle_timeout
from django_phi_oidc.contrib.foreign_sessions import foreign_sessions
from django_phi_oidc.contrib.foreign_sessions.foreign_sessions import (
    ForeignSession,
    end_foreign_sessions,
    has_session_table,
    iterate_foreign_sessions,
    queue_foreign_tokens,
)
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import KeyMissing
from django_phi_oidc.sessions.models import PendingRevocation
from tests.support.foreign_sessions import (
    FORMER_BACKEND,
    MODEL_BACKEND,
    MOZILLA_TOKENS,
    begin_foreign_session,
    create_id_token,
    expire_session,
)
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import ScriptedOP, SecureClient, SignedIn, django_session_exists, events
from tests.support.subject_linking import at_once, make_user

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def found() -> list[ForeignSession]:
    return list(iterate_foreign_sessions())


def end(sessions: list[ForeignSession], provider: str = "") -> int:
    count, _ = end_foreign_sessions(sessions, provider=provider, origin=Origin(actor="officer"), now=clock.now())
    return count


def test_sessions_of_other_backends_are_found_and_no_others(
    sign_in: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_sessions, "BATCH_SIZE", 2)
    user = make_user()
    keys = {begin_foreign_session(user), begin_foreign_session(user, backend=MODEL_BACKEND)}
    keys.add(begin_foreign_session(user, **{LOCAL_SIGN_IN_KEY: FORMER_BACKEND}, backend=MODEL_BACKEND))
    expired = begin_foreign_session(user)
    expire_session(expired, now=clock.now())
    sign_in()
    begin_foreign_session(user, **{LOCAL_SIGN_IN_KEY: FORMER_BACKEND})
    Client().session.save()
    Session.objects.create(session_key="damaged", session_data="x", expire_date=clock.now())
    assert {session.session_key for session in found()} == {*keys, expired}
    assert {(session.user_id, session.backend) for session in found()} == {
        (str(user.pk), FORMER_BACKEND),
        (str(user.pk), MODEL_BACKEND),
    }


@pytest.mark.parametrize(
    ("claims", "provider"),
    [
        ({}, "default"),
        ({"aud": ["billing", "portal"]}, "default"),
        ({"iss": "https://elsewhere.example"}, ""),
        ({"aud": "billing"}, ""),
        ({"aud": None}, ""),
    ],
    ids=str,
)
def test_provider_of_the_tokens_is_that_of_the_stored_id_token(
    op: ScriptedOP, claims: dict[str, Any], provider: str
) -> None:
    id_token = create_id_token(**{"issuer": op.issuer, **{k: v for k, v in claims.items() if k != "iss"}})
    if "iss" in claims:
        id_token = create_id_token(claims["iss"])
    begin_foreign_session(**MOZILLA_TOKENS, oidc_id_token=id_token)
    (session,) = found()
    assert session.provider == provider
    assert [token.value for token in session.tokens] == ["foreign-refresh-canary", "foreign-access-canary"]
    assert "canary" not in repr(session)


def test_tokens_are_found_where_mozilla_django_oidc_stores_them(op: ScriptedOP, settings: Any) -> None:
    settings.OIDC_STORE_ACCESS_TOKEN = settings.OIDC_STORE_ID_TOKEN = True
    entries: dict[str, Any] = {}
    backend = MozillaBackend.__new__(MozillaBackend)
    backend.request = SimpleNamespace(session=entries)
    backend.store_tokens("foreign-access-canary", create_id_token(op.issuer))
    begin_foreign_session(**entries)
    (session,) = found()
    assert ([token.value for token in session.tokens], session.provider) == (["foreign-access-canary"], "default")


@pytest.mark.parametrize("id_token", ["", "x", "a.b.c", None, 7])
def test_unreadable_id_token_names_no_provider(op: ScriptedOP, id_token: Any) -> None:
    begin_foreign_session(oidc_id_token=id_token, **MOZILLA_TOKENS)
    assert found()[0].provider == ""


def test_end_deletes_the_rows_queues_the_tokens_and_records_an_event_for_each(op: ScriptedOP) -> None:
    user = make_user()
    known = begin_foreign_session(user, **MOZILLA_TOKENS, oidc_id_token=create_id_token(op.issuer))
    without = begin_foreign_session(backend=MODEL_BACKEND)
    other = begin_foreign_session()
    sessions = [session for session in found() if session.session_key != other]
    assert end(sessions) == 2
    assert [django_session_exists(key) for key in (known, without, other)] == [False, False, True]
    rows = PendingRevocation.objects.order_by("-token_type_hint")
    assert [(row.provider, row.token_type_hint, row.decrypt_token()) for row in rows] == [
        ("default", "refresh_token", "foreign-refresh-canary"),
        ("default", "access_token", "foreign-access-canary"),
    ]
    assert {
        (event.resource, event.provider, event.reason, event.actor, event.session, json.loads(event.detail)["tokens"])
        for event in events("session.ended")
    } >= {(f"user/{user.pk}", "default", "administrator", "officer", "", 2)}
    assert len(events("session.ended")) == 2
    assert end(sessions) == 0
    assert len(events("session.ended")) == 2


@pytest.mark.parametrize("provider", ["", "default"])
def test_tokens_of_an_unknown_provider_are_sent_nowhere_unless_one_is_named(op: ScriptedOP, provider: str) -> None:
    begin_foreign_session(**MOZILLA_TOKENS)
    assert end(found(), provider=provider) == 1
    assert PendingRevocation.objects.filter(provider="default").count() == (2 if provider else 0)
    (event,) = events("session.ended")
    assert (event.provider, json.loads(event.detail)) == (provider, {"tokens": 2 if provider else 0})
    assert not Session.objects.exists()


def test_session_is_ended_once_by_concurrent_operators(op: ScriptedOP) -> None:
    for _ in range(3):
        begin_foreign_session(**MOZILLA_TOKENS, oidc_id_token=create_id_token(op.issuer))
    sessions = found()
    assert sum(at_once(*[lambda: end(sessions)] * 4)) == 3
    assert (PendingRevocation.objects.count(), len(events("session.ended"))) == (6, 3)


def test_missing_encryption_key_leaves_the_sessions(op: ScriptedOP, settings: Any) -> None:
    begin_foreign_session(**MOZILLA_TOKENS, oidc_id_token=create_id_token(op.issuer))
    sessions = found()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    with pytest.raises(KeyMissing):
        end(sessions)
    assert Session.objects.count() == 1
    assert keyring.find_keys("encryption") == ()


@pytest.mark.urls("tests.unit.sessions.urls")
@pytest.mark.parametrize("backend", [FORMER_BACKEND, MODEL_BACKEND])
def test_logout_of_a_foreign_session_revokes_its_tokens(op: ScriptedOP, settings: Any, backend: str) -> None:
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, MODEL_BACKEND]
    key = begin_foreign_session(backend=backend, **MOZILLA_TOKENS, oidc_id_token=create_id_token(op.issuer))
    client = SecureClient()
    client.cookies[settings.SESSION_COOKIE_NAME] = key
    assert client.get("/leave/").status_code == 200
    assert not django_session_exists(key)
    assert [asked["token"] for asked in op.asked] == ["foreign-refresh-canary", "foreign-access-canary"]
    assert len(events("token.revoked")) == 2


@pytest.mark.urls("tests.unit.sessions.urls")
@pytest.mark.parametrize("backend", [FORMER_BACKEND, MODEL_BACKEND])
def test_timeout_of_a_foreign_session_revokes_its_tokens(op: ScriptedOP, settings: Any, backend: str) -> None:
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, MODEL_BACKEND]
    key = begin_foreign_session(backend=backend, **MOZILLA_TOKENS, oidc_id_token=create_id_token(op.issuer))
    client = SecureClient()
    client.cookies[settings.SESSION_COOKIE_NAME] = key
    assert client.get("/public/").status_code == 200
    later = clock.now() + idle_timeout() + timedelta(seconds=1)
    with clock.override_clock(lambda: later):
        assert client.get("/public/").status_code == 401
    assert not django_session_exists(key)
    assert {asked["token"] for asked in op.asked} == set(MOZILLA_TOKENS.values())


def test_tokens_without_a_known_provider_or_key_do_not_prevent_a_logout(
    op: ScriptedOP, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert queue_foreign_tokens({}, now=clock.now()) == ()
    assert queue_foreign_tokens(MOZILLA_TOKENS, now=clock.now()) == ()
    known = {**MOZILLA_TOKENS, "oidc_id_token": create_id_token(op.issuer)}
    assert len(queue_foreign_tokens(known, now=clock.now())) == 2
    assert caplog.records == []
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    assert queue_foreign_tokens(known, now=clock.now()) == ()
    assert "are not revoked" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize("value", [{"access_token": "x"}, ["x"], 7, True, "x\0", "ä", "\ud800"], ids=ascii)
def test_value_that_is_no_token_does_not_prevent_a_logout_or_an_end(op: ScriptedOP, value: Any) -> None:
    entries = {"oidc_access_token": value, "oidc_refresh_token": "foreign-canary"}
    known = {**entries, "oidc_id_token": create_id_token(op.issuer)}
    assert len(queue_foreign_tokens(known, now=clock.now())) == 1
    begin_foreign_session(**known)
    assert [len(session.tokens) for session in found()] == [1]
    assert end(found()) == 1
    assert {row.decrypt_token() for row in PendingRevocation.objects.all()} == {"foreign-canary"}


@pytest.mark.parametrize(
    ("engine", "expected"),
    [("db", True), ("cached_db", True), ("cache", False), ("file", False), ("signed_cookies", False)],
)
def test_only_engines_with_a_table_can_be_searched(engine: str, expected: bool, settings: Any) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    assert has_session_table() == expected


def test_session_in_a_cache_and_a_table_ends_in_both(op: ScriptedOP, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
    key = begin_foreign_session()
    assert django_session_exists(key)
    assert end(found()) == 1
    assert not django_session_exists(key)
