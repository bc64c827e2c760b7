import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.ending import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from django_phi_oidc.sessions.revoking import queue_revocations
from tests.sessions.conftest import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    ScriptedOP,
    SignedIn,
    answering,
    django_session_exists,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def run(*arguments: str) -> str:
    stdout = StringIO()
    call_command("phi_oidc", "sessions", *arguments, stdout=stdout)
    return stdout.getvalue().strip()


def queue_for_later() -> None:
    queue_revocations([ReceivedToken(hint="access_token", value="t")], provider="default", now=clock.now())
    PendingRevocation.objects.update(due_at=clock.now() + timedelta(hours=1))


def test_retry_does_not_wait_for_the_back_off(op: ScriptedOP) -> None:
    queue_for_later()
    assert run("retry") == "1 revocations were waiting: 1 done."
    assert PendingRevocation.objects.get().status == "done"


def test_retry_of_what_fails_again_is_an_error(op: ScriptedOP) -> None:
    op.answer = answering(500)
    queue_for_later()
    with pytest.raises(CommandError, match="1 revocations were waiting: 1 pending"):
        run("retry")


def test_retry_with_nothing_to_do_says_so() -> None:
    assert run("retry") == "0 revocations were waiting: nothing to do."


def test_sessions_without_a_command_is_refused() -> None:
    with pytest.raises(CommandError):
        run()


def test_list_shows_who_has_a_session_and_no_secret(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    first, second = sign_in(), sign_in()
    shown = run("list")
    assert [line.split("  ")[:3] for line in shown.splitlines()] == [
        [str(each.session.pk), each.user.get_username(), "default"] for each in (first, second)
    ]
    assert run("list", "--user", second.user.get_username()) == shown.splitlines()[1]
    assert run("list", "--limit", "1") == shown.splitlines()[0]
    assert run("list", "--provider", "another") == ""
    row = json.loads(run("list", "--json").splitlines()[0])
    assert {"id", "user", "provider", "started_at", "last_seen_at", "ended_at", "end_reason", "pending"} == set(row)
    for secret in (ACCESS_TOKEN, REFRESH_TOKEN, "sid-1", first.django_key):
        assert secret not in shown + json.dumps(row)


def test_list_of_what_is_pending_shows_sessions_that_have_ended(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    ended, _ = sign_in(), sign_in()
    end_session(ended.session.pk, EndReason.LOGOUT, origin=Origin(), now=clock.now())
    assert run("list", "--pending").startswith(f"{ended.session.pk}  ")
    assert "(logout), tokens wait to be revoked" in run("list", "--pending")
    assert run("retry") == "2 revocations were waiting: 2 done."
    assert run("list", "--pending") == ""


CHOICES: dict[str, Callable[[SignedIn], list[str]]] = {
    "by id": lambda one: [str(one.session.pk)],
    "by user": lambda one: ["--user", one.user.get_username()],
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_end_ends_those_that_were_named_and_no_others(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], choice: Callable[[SignedIn], list[str]]
) -> None:
    named, other = sign_in(), sign_in()
    assert run("end", *choice(named)) == "1 sessions ended, 2 of 2 tokens revoked."
    assert OIDCSession.objects.get(pk=named.session.pk).end_reason == "administrator"
    assert OIDCSession.objects.get(pk=other.session.pk).ended_at is None
    assert (django_session_exists(named.django_key), django_session_exists(other.django_key)) == (False, True)


def test_end_of_all_ends_all(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    for _ in range(3):
        sign_in()
    assert run("end", "--all") == "3 sessions ended, 6 of 6 tokens revoked."
    assert run("end", "--all") == "0 sessions ended, 0 of 0 tokens revoked."


def test_end_with_the_provider_away_ends_them_and_says_what_is_left(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    op.answer = answering(500)
    sign_in()
    with pytest.raises(CommandError, match=r"1 sessions ended, 0 of 2 tokens revoked\. The others wait"):
        run("end", "--all")
    assert OIDCSession.objects.get().end_reason == "administrator"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "Name sessions"), (["--user", "nobody"], "no user nobody"), ([str(uuid.UUID(int=1))], "do not live")],
)
def test_end_of_nobody_is_refused_and_ends_nothing(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], arguments: list[str], said: str
) -> None:
    sign_in()
    with pytest.raises(CommandError, match=said):
        run("end", *arguments)
    assert OIDCSession.objects.get().ended_at is None
