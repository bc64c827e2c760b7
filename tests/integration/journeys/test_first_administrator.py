"""The page on the first administrator, over a socket: from a sign-in without privileges to the admin, and back."""

import io
import json
import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command

from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser
from tests.support.manual_blocks import block, commands
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
PAGE = "first-administrator"


NAME = r"phi_[a-z2-7]{26}"


def run_as_on_the_page(name: str, username: str, *more: str) -> str:
    """Run the command of that block of the page, for the account with that user name."""
    (words,) = commands(PAGE, name)
    assert words[:3] == ["python", "manage.py", "phi_oidc"]
    out = io.StringIO()
    words = [re.sub(NAME, username, word) for word in words[3:]]
    call_command("phi_oidc", *words, *more, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_account_of_a_provider_becomes_an_administrator_and_ceases_to_be_one(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.ROOT_URLCONF = "tests.urls"
    run_as_on_the_page("groups", "")
    browser.sign_in(op)
    user = get_user_model().objects.get()
    assert not user.has_usable_password()
    assert browser.get("/admin/").location.startswith("/admin/login/")
    assert browser.get("/admin/login/?next=/admin/").status == 403
    assert run_as_on_the_page("list", "").split()[1] == user.username
    output = run_as_on_the_page("grant", user.username, "--yes")
    *_, granted, following = block(PAGE, "grant").splitlines()
    assert output == re.sub(NAME, user.username, f"{granted}\n{following}\n")
    page = browser.get("/admin/")
    assert page.status == 200
    assert "/admin/phi_oidc_audit/auditevent/" in page.body
    assert "/admin/django_phi_oidc/storedclaim/" not in page.body
    run_as_on_the_page("withdraw", user.username, "--yes")
    assert browser.get("/admin/").status == 302
    changes = [event for event in events(action="role.changed") if event.resource == f"user/{user.pk}"]
    assert {event.actor for event in changes} == {build_operator_actor()}
    (signed_in,) = map(json.loads, run_as_on_the_page("compare", "").splitlines())
    assert signed_in["actor"] == str(user.pk)


def test_question_on_the_page_is_the_one_that_the_command_asks(op: DemoProvider, browser: Browser) -> None:
    browser.sign_in(op)
    user = get_user_model().objects.get()
    run_as_on_the_page("groups", "")
    shown = block(PAGE, "grant").splitlines()[1].removesuffix(" Type yes: yes")
    with pytest.raises(Exception, match="Add --yes to confirm") as refused:
        run_as_on_the_page("grant", user.username)
    asked = str(refused.value).removesuffix(" Add --yes to confirm.")
    varying = rf"{NAME}|pk:\d+|\d{{4}}-\S+\d"
    assert re.sub(varying, "…", asked) == re.sub(varying, "…", shown)
