"""The page about existing users."""

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import call_command

from tests.support.foreign_sessions import FORMER_BACKEND, begin_foreign_session
from tests.support.manual_blocks import block, commands
from tests.support.subject_linking import ISSUER, make_user, sign_in

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
PAGE = "migrate-existing-users"


def test_users_without_a_link_are_those_who_are_left() -> None:
    sign_in()
    user, inactive = make_user(), make_user()
    type(inactive).objects.filter(pk=inactive.pk).update(is_active=False)
    names: dict[str, Any] = {}
    exec(block(PAGE, "left").replace("https://op.example.org", ISSUER), names)
    assert [*names["left"]] == [user]


def test_commands_list_and_end_the_former_sessions(capsys: pytest.CaptureFixture[str]) -> None:
    begin_foreign_session()
    listing, preview, ending = commands(PAGE, "foreign")
    for shown in (listing, preview):
        call_command(*shown[2:])
        assert FORMER_BACKEND in capsys.readouterr().out
    assert Session.objects.exists()
    call_command(*ending[2:])
    assert capsys.readouterr().out == "1 sessions ended, 0 of 0 tokens revoked.\n"
    assert not Session.objects.exists()
