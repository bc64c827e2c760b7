from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc import clock
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.models import PendingRevocation
from django_phi_oidc.sessions.revoking import queue_revocations
from tests.sessions.conftest import ScriptedOP, answering

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
