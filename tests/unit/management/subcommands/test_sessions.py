"""`manage.py phi_oidc sessions`."""

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.management.subcommands import sessions
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from django_phi_oidc.sessions.token_revocation import queue_revocations, retry_due
from tests.support.session_fixtures import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    ScriptedOP,
    SignedIn,
    answering,
    django_session_exists,
    events,
    send,
)
from tests.unit.management.terminal import Terminal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def run(*arguments: str, stderr: StringIO | None = None) -> str:
    stdout = StringIO()
    call_command("phi_oidc", "sessions", *arguments, stdout=stdout, stderr=stderr or StringIO())
    return stdout.getvalue().strip()


def queue_for_later() -> None:
    queue_revocations([ReceivedToken(token_type_hint="access_token", value="t")], provider="default", now=clock.now())
    PendingRevocation.objects.update(due_at=clock.now() + timedelta(hours=1))


def test_sessions_of_a_group_are_listed_and_ended(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    member, other = sign_in(), sign_in()
    member.user.groups.add(Group.objects.create(name="Ward 7"))  # type: ignore[attr-defined]
    with pytest.raises(CommandError, match="There is no group Ward 8"):
        run("end", "--group", "Ward 8")
    assert [str(row.session.pk) in run("list", "--group", "Ward 7") for row in (member, other)] == [True, False]
    assert run("end", "--group", "Ward 7") == "1 sessions ended, 2 of 2 tokens revoked."
    assert list(OIDCSession.objects.live()) == [other.session]


def test_retry_ignores_the_back_off(op: ScriptedOP) -> None:
    queue_for_later()
    assert run("retry") == "1 revocations were pending: 1 done."
    assert PendingRevocation.objects.get().status == "done"


def test_retry_that_fails_again_is_an_error(op: ScriptedOP) -> None:
    op.answer = answering(500)
    queue_for_later()
    with pytest.raises(CommandError, match="1 revocations were pending: 1 pending"):
        run("retry")


def test_retry_without_pending_revocations() -> None:
    assert run("retry") == "0 revocations were pending: nothing to do."


def test_sessions_without_a_command_is_refused() -> None:
    with pytest.raises(CommandError):
        run()


def test_list_shows_sessions_without_secrets(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    first, second = sign_in(), sign_in()
    output = run("list")
    assert [line.split("  ")[:3] for line in output.splitlines()] == [
        [str(item.session.pk), item.user.get_username(), "default"] for item in (first, second)
    ]
    assert run("list", "--user", second.user.get_username()) == output.splitlines()[1]
    assert run("list", "--provider", "default") == output
    row = json.loads(run("list", "--json").splitlines()[0])
    assert {"id", "user", "provider", "started_at", "last_seen_at", "ended_at", "end_reason", "pending"} == set(row)
    for secret in (ACCESS_TOKEN, REFRESH_TOKEN, "sid-1", first.django_key):
        assert secret not in output + json.dumps(row)


def test_list_stops_at_its_limit_and_reports_more(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    output = [str(sign_in().session.pk) for _ in range(3)]
    for limit, message in ((2, "There are more than 2 sessions."), (3, "")):
        stderr = StringIO()
        lines = run("list", "--limit", str(limit), stderr=stderr).splitlines()
        assert [line.split()[0] for line in lines] == output[:limit]
        assert stderr.getvalue().strip() == message


def test_list_shows_a_primary_key_instead_of_a_name_with_control_characters(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    signed_in = sign_in()
    for name, output in (("zoë", "zoë"), ("a\x1b[2Jb\nc", f"pk:{signed_in.user.pk}")):
        get_user_model()._default_manager.filter(pk=signed_in.user.pk).update(username=name)
        assert f"  {output}  " in run("list")
        assert json.loads(run("list", "--json"))["user"] == output


def test_list_pending_shows_ended_sessions(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    ended, _ = sign_in(), sign_in()
    end_session(ended.session.pk, EndReason.LOGOUT, origin=Origin(), now=clock.now())
    assert run("list", "--pending").startswith(f"{ended.session.pk}  ")
    assert "(logout), revocations pending" in run("list", "--pending")
    assert run("retry") == "2 revocations were pending: 2 done."
    assert run("list", "--pending") == ""


CHOICES: dict[str, Callable[[SignedIn], list[str]]] = {
    "by id": lambda signed_in: [str(signed_in.session.pk)],
    "by user name": lambda signed_in: ["--user", signed_in.user.get_username()],
    "by primary key": lambda signed_in: ["--user", f"pk:{signed_in.user.pk}"],
    "by subject": lambda signed_in: ["--user", f"uuid:{signed_in.session.subject.uuid}"],
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_end_ends_only_the_named_sessions(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], choice: Callable[[SignedIn], list[str]]
) -> None:
    named, other = sign_in(), sign_in()
    assert run("end", *choice(named)) == "1 sessions ended, 2 of 2 tokens revoked."
    assert OIDCSession.objects.get(pk=named.session.pk).end_reason == "administrator"
    assert OIDCSession.objects.get(pk=other.session.pk).ended_at is None
    assert (django_session_exists(named.django_key), django_session_exists(other.django_key)) == (False, True)


def test_end_before_a_time_ends_only_earlier_sessions(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    first, second = sign_in(), sign_in()
    started_at = OIDCSession.objects.get(pk=second.session.pk).started_at
    OIDCSession.objects.filter(pk=first.session.pk).update(started_at=started_at - timedelta(seconds=1))
    before = ("--before", started_at.isoformat())
    assert run("end", *before, "--dry-run").splitlines()[-1].startswith("Dry run: 1 sessions would be ended")
    assert run("end", *before, "--provider", "default") == "1 sessions ended, 2 of 2 tokens revoked."
    assert are_live(first, second) == [False, True]


def test_end_by_provider_ends_only_its_sessions(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    first, second, elsewhere = sign_in(), sign_in(), sign_in()
    OIDCSession.objects.filter(pk=elsewhere.session.pk).update(provider="elsewhere")
    both = ("--provider", "default", "--user", first.user.get_username())
    assert run("end", *both) == "1 sessions ended, 2 of 2 tokens revoked."
    assert are_live(first, second, elsewhere) == [False, True, True]
    assert run("end", "--provider", "default") == "1 sessions ended, 2 of 2 tokens revoked."
    assert are_live(first, second, elsewhere) == [False, False, True]
    assert run("end", "--provider", "default") == "0 sessions ended, 0 of 0 tokens revoked."
    with pytest.raises(CommandError, match=r"1 sessions ended, 0 of 2 tokens revoked\. The others: 2 pending\."):
        run("end", "--provider", "elsewhere")  # no longer declared
    assert are_live(first, second, elsewhere) == [False, False, False]
    assert len(op.asked) == 4


def are_live(*people: SignedIn) -> list[bool]:
    live = [OIDCSession.objects.get(pk=person.session.pk).ended_at is None for person in people]
    assert [django_session_exists(person.django_key) for person in people] == live
    return live


def test_end_all_ends_all_sessions_and_shows_progress(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    for _ in range(3):
        sign_in()
    with pytest.raises(CommandError, match="Add --yes"):
        run("end", "--all")
    assert OIDCSession.objects.filter(ended_at=None).count() == 3
    terminal, file = Terminal(), StringIO()
    assert run("end", "--all", "--yes", stderr=terminal) == "3 sessions ended, 6 of 6 tokens revoked."
    output = terminal.getvalue()
    assert (
        output.index("100% 3 of 3 sessions ended")
        < output.index(" 17% 1 of 6 tokens")
        < output.index("100% 6 of 6 tokens")
    )
    assert run("end", "--all", "--yes", stderr=file) == "0 sessions ended, 0 of 0 tokens revoked."
    assert file.getvalue() == ""
    assert {(event.reason, event.actor) for event in events("session.ended")} == {
        ("administrator", build_operator_actor())
    }


def test_end_all_reads_each_session_once_and_ends_one_that_starts_meanwhile(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "BATCH_SIZE", 2)
    for _ in range(6):
        sign_in()
    now, lowest = clock.now(), uuid.UUID(int=1)

    def start_another() -> datetime:
        if OIDCSession.objects.live().count() == 4:
            # Of a server whose clock is slow: its id is before those that have ended.
            OIDCSession.objects.get_or_create(id=lowest, provider="default", started_at=now, last_seen_at=now)
        return now

    with clock.override_clock(start_another), CaptureQueriesContext(connection) as queries:
        assert run("end", "--all", "--yes") == "7 sessions ended, 12 of 12 tokens revoked."
    assert not OIDCSession.objects.live().exists()
    statements = [query["sql"] for query in queries if query["sql"].endswith(" LIMIT 2")]
    reads = [statement.partition(" WHERE ")[2] for statement in statements if 'FROM "django_phi_oidc_oidc' in statement]
    # The first read, three after a batch, and two from the start again, the last of which finds none.
    assert [" > " in condition for condition in reads] == [False, True, True, True, False, True, False]


def test_end_without_time_leaves_the_tokens_to_the_sweep(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    sign_in()
    with pytest.raises(CommandError, match="The others: 2 pending"):
        run("end", "--all", "--yes", "--seconds", "0")
    assert op.asked == []
    assert run("retry") == "2 revocations were pending: 2 done."


ENDING = {"end": ("end", "--all", "--yes"), "retry": ("retry",)}
DONE = {
    "end": "1 sessions ended, 2 of 2 tokens revoked.",
    "retry": "2 revocations were pending: 2 done.",
}


@pytest.mark.parametrize("command", ENDING)
def test_token_revoked_meanwhile_by_a_worker_counts_as_revoked(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], command: str
) -> None:
    def while_a_worker_sweeps(handler: BaseHTTPRequestHandler) -> None:
        if len(op.asked) == 1:
            retry_due(clock=clock.now, budget_seconds=5, timeout_seconds=5, give_up_after=timedelta(days=1))
            connections.close_all()
        send(handler, 200)

    signed_in = sign_in()
    if command == "retry":
        end_session(signed_in.session.pk, EndReason.LOGOUT, origin=Origin(), now=clock.now())
    op.answer = while_a_worker_sweeps
    assert run(*ENDING[command]) == DONE[command]
    assert len(op.asked) == 2, "one request for each token"


def test_end_with_an_unreachable_provider_ends_sessions_and_reports_pending_tokens(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    op.answer = answering(500)
    sign_in()
    with pytest.raises(CommandError, match=r"1 sessions ended, 0 of 2 tokens revoked\. The others: 2 pending\."):
        run("end", "--all", "--yes")
    assert OIDCSession.objects.get().end_reason == "administrator"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "Name sessions"),
        (["--user", "unknown"], "no user unknown"),
        (["--user", "pk:0"], "no user pk:0"),
        (["--provider", "typo"], "no provider typo"),
        ([str(uuid.UUID(int=1))], "are not live"),
    ],
)
def test_end_without_a_match_is_refused(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], arguments: list[str], fault: str
) -> None:
    sign_in()
    with pytest.raises(CommandError, match=fault):
        run("end", *arguments)
    assert OIDCSession.objects.get().ended_at is None
