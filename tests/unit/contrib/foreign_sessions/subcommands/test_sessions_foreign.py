"""`manage.py phi_oidc sessions list --foreign` and `sessions end --foreign`."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.sessions.models import OIDCSession
from tests.support.foreign_sessions import (
    FORMER_BACKEND,
    MODEL_BACKEND,
    MOZILLA_TOKENS,
    begin_foreign_session,
    create_id_token,
    expire_session,
)
from tests.support.session_fixtures import ScriptedOP, SignedIn, answering, django_session_exists, events
from tests.support.subject_linking import make_user
from tests.unit.management.terminal import Terminal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def run(*words: str, stderr: Any = None) -> tuple[str, str]:
    out, err = io.StringIO(), stderr or io.StringIO()
    call_command("phi_oidc", "sessions", *words, "--foreign", stdout=out, stderr=err)
    shown = out.getvalue() + err.getvalue()
    assert "canary" not in shown
    assert not [key for key in Session.objects.values_list("pk", flat=True) if key in shown]
    return out.getvalue(), err.getvalue()


def refused(*words: str) -> str:
    with pytest.raises(CommandError) as refusal:
        run(*words)
    return str(refusal.value)


@pytest.fixture(autouse=True)
def _model_backend(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, MODEL_BACKEND]


def test_list_shows_and_counts_the_sessions_of_other_backends(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    user = make_user()
    begin_foreign_session(user, **MOZILLA_TOKENS, oidc_id_token=create_id_token(op.issuer))
    begin_foreign_session(user, backend=MODEL_BACKEND, oidc_access_token="foreign-access-canary")
    expire_session(begin_foreign_session(user), now=clock.now())
    sign_in()
    out, err = run("list")
    lines = sorted(out.splitlines())
    assert [line.split("  ")[:2] for line in lines] == [
        [user.get_username(), MODEL_BACKEND],
        [user.get_username(), FORMER_BACKEND],
        [user.get_username(), FORMER_BACKEND],
    ]
    assert lines[0].endswith(", 1 tokens of an unknown provider")
    assert sum(line.endswith(", 2 tokens of default") for line in lines) == 1
    assert err == "3 sessions of other backends: 1 live, 1 anonymous, 1 expired. They store 3 tokens.\n"
    row = json.loads(run("list", "--json", "--user", user.get_username())[0].splitlines()[0])
    assert set(row) == {"user", "user_pk", "backend", "expires_at", "state", "tokens", "provider"}


def test_list_counts_more_than_it_shows() -> None:
    for _ in range(3):
        begin_foreign_session()
    out, err = run("list", "--limit", "2")
    assert len(out.splitlines()) == 2
    assert err.startswith("3 sessions of other backends: 0 live, 3 anonymous, 0 expired.")


def test_session_of_a_deleted_user_is_listed_and_ended() -> None:
    user = make_user()
    begin_foreign_session(user)
    pk = user.pk
    user.delete()
    assert run("list")[0].startswith(f"(no user {pk})  ")
    assert run("end")[0] == "1 sessions ended, 0 of 0 tokens revoked.\n"


def test_end_ends_foreign_sessions_only_and_revokes_their_tokens(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    own = sign_in()
    id_token = create_id_token(op.issuer)
    keys = [begin_foreign_session(**MOZILLA_TOKENS, oidc_id_token=id_token), begin_foreign_session(), "no-key"]
    expire_session(keys[0], now=clock.now())
    terminal = Terminal()
    assert run("end", stderr=terminal)[0] == "2 sessions ended, 2 of 2 tokens revoked.\n"
    assert "2 sessions ended" in terminal.getvalue()
    assert [django_session_exists(key) for key in (*keys, own.django_key)] == [False, False, False, True]
    assert OIDCSession.objects.get().ended_at is None
    assert {asked["token"] for asked in op.asked} == set(MOZILLA_TOKENS.values())
    assert {event.actor for event in events("session.ended")} == {build_operator_actor()}
    assert run("end")[0] == "0 sessions ended, 0 of 0 tokens revoked.\n"


def test_end_of_one_user_leaves_the_others() -> None:
    user = make_user()
    key, other = begin_foreign_session(user), begin_foreign_session()
    assert run("end", "--user", f"pk:{user.pk}")[0] == "1 sessions ended, 0 of 0 tokens revoked.\n"
    assert [django_session_exists(name) for name in (key, other)] == [False, True]


def test_tokens_of_an_unknown_provider_need_a_decision(op: ScriptedOP) -> None:
    begin_foreign_session(**MOZILLA_TOKENS)
    begin_foreign_session()
    assert refused("end").startswith("Nothing was ended. 1 sessions store tokens")
    assert (Session.objects.count(), op.asked) == (2, [])
    assert run("end", "--provider", "default")[0] == "2 sessions ended, 2 of 2 tokens revoked.\n"
    assert {asked["token"] for asked in op.asked} == set(MOZILLA_TOKENS.values())
    begin_foreign_session(**MOZILLA_TOKENS)
    assert run("end", "--yes")[0] == "1 sessions ended, 0 of 0 tokens revoked.\n"
    assert (Session.objects.count(), len(op.asked)) == (0, 2)


def test_tokens_of_another_issuer_are_not_sent_to_the_named_provider(op: ScriptedOP) -> None:
    begin_foreign_session(**MOZILLA_TOKENS, oidc_id_token=create_id_token("https://former.example"))
    former_client = create_id_token(op.issuer, aud="former")
    begin_foreign_session(oidc_access_token="foreign-own-canary", oidc_id_token=former_client)
    begin_foreign_session(oidc_access_token="foreign-unknown-canary")
    words = ("end", "--provider", "default")
    assert run(*words, "--dry-run")[0].endswith("3 sessions would be ended, 2 tokens would be revoked.\n")
    assert refused(*words).startswith("Nothing was ended. 1 sessions store tokens")
    assert (Session.objects.count(), op.asked) == (3, [])
    assert run(*words, "--yes")[0] == "3 sessions ended, 2 of 2 tokens revoked.\n"
    assert {asked["token"] for asked in op.asked} == {"foreign-own-canary", "foreign-unknown-canary"}
    assert sorted(event.provider for event in events("session.ended")) == ["", "default", "default"]


def test_unreachable_provider_leaves_the_tokens_pending(op: ScriptedOP) -> None:
    op.answer = answering(503)
    begin_foreign_session(**MOZILLA_TOKENS, oidc_id_token=create_id_token(op.issuer))
    assert "1 sessions ended, 0 of 2 tokens revoked. The others: 2 pending." in refused("end")
    assert not Session.objects.exists()


@pytest.mark.parametrize("engine", ["cache", "file", "signed_cookies"])
def test_engine_without_a_table_is_an_error_that_says_what_is_possible(engine: str, settings: Any) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    for command in ("list", "end"):
        assert "SECRET_KEY" in refused(command)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("list", "--pending"), "permits only"),
        (("list", "--provider", "default"), "permits only"),
        (("list", "--group", "Ward 7"), "permits only"),
        (("end", "--group", "Ward 7", "--yes"), "permits only"),
        (("end", "--before", "2026-01-01", "--yes"), "permits only"),
        (("end", "--all", "--yes"), "permits only"),
        (("end", "6f1c2b1e-0d0c-4b43-9c5e-1f2f3b6a7c8d"), "permits only"),
        (("end", "--provider", "typo"), "no provider typo"),
        (("end", "--user", "unknown"), "no user unknown"),
    ],
)
def test_options_that_do_not_fit_are_refused(words: tuple[str, ...], reason: str) -> None:
    begin_foreign_session()
    assert reason in refused(*words)
    assert Session.objects.count() == 1


@pytest.mark.parametrize(("words", "tokens"), [((), 2), (("--provider", "default"), 3)], ids=["", "--provider"])
def test_dry_run_shows_what_would_be_ended(op: ScriptedOP, words: tuple[str, ...], tokens: int) -> None:
    begin_foreign_session(**MOZILLA_TOKENS, oidc_id_token=create_id_token(op.issuer))
    begin_foreign_session(oidc_access_token="foreign-access-canary")
    *lines, text = run("end", *words, "--dry-run")[0].splitlines()
    assert len(lines) == 2
    assert text == f"Dry run: 2 sessions would be ended, {tokens} tokens would be revoked."
    assert (Session.objects.count(), op.asked) == (2, [])
