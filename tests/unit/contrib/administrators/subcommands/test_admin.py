"""`manage.py phi_oidc admin grant`: the first administrator, with an event in the same transaction."""

import io
import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.contrib.administrators.subcommands.admin import STAFF
from django_phi_oidc.contrib.administrators.subcommands.admin import _validate_roles as validate_roles
from tests.support.person_page_fixtures import make_groups
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import sign_in
from tests.unit.management.terminal import run_on_terminal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
OFFICER = "Security officer"


@pytest.fixture
def user() -> Any:
    """Return the account of a person who has signed in at a provider: it has no password."""
    account: Any = sign_in().user
    assert not account.has_usable_password()
    return account


@pytest.fixture
def _groups() -> None:
    make_groups()


def run(*words: object) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "admin", *map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def grant(*words: object) -> str:
    return run("grant", *words)


def privileges(user: Any) -> tuple[bool, bool, set[str]]:
    user = get_user_model().objects.get(pk=user.pk)
    return user.is_staff, user.is_superuser, set(user.groups.values_list("name", flat=True))


def changes(user: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return actor and detail of each event about a change of the account's privileges."""
    events = AuditEvent.objects.filter(action="role.changed", resource=f"user/{user.pk}").order_by("id")
    return [(event.actor, json.loads(event.detail)) for event in events]


def test_account_of_a_provider_gets_access_to_the_admin_with_an_event(user: Any) -> None:
    output = grant(user.username, "--yes")
    assert privileges(user) == (True, False, set())
    assert changes(user) == [(build_operator_actor(), {"granted": ["is_staff"]})]
    first, second, third = output.splitlines()
    assert first == f"{user.username} was granted is_staff."
    assert second == "Next: Open /admin/ in the browser in which the account is signed in."
    assert third.startswith("Next: The account has no permissions"), third


@pytest.mark.usefixtures("_groups")
def test_group_and_superuser_are_granted_in_one_command(user: Any) -> None:
    output = grant(f"pk:{user.pk}", "--group", OFFICER, "--superuser", "--yes")
    assert privileges(user) == (True, True, {OFFICER})
    events = changes(user)
    assert {actor for actor, _ in events} == {build_operator_actor()}
    merged = {key: names for _, detail in events for key, names in detail.items()}
    assert merged == {"granted": ["is_staff", "is_superuser"], "added": [OFFICER]}
    assert f"was granted is_staff, is_superuser, the group {OFFICER}." in output
    assert "no permissions" not in output


@pytest.mark.usefixtures("_groups")
def test_second_grant_changes_nothing(user: Any) -> None:
    grant(user.username, "--group", OFFICER, "--yes")
    before = changes(user)
    assert f"{user.username} had all of this already." in grant(user.username, "--group", OFFICER, "--yes")
    assert changes(user) == before
    grant(user.username, "--group", "Help desk", "--yes")
    assert privileges(user) == (True, False, {OFFICER, "Help desk"}), "the other group stays"


def test_command_shows_the_account_and_needs_a_confirmation(user: Any) -> None:
    get_user_model().objects.create_superuser("other")
    with pytest.raises(CommandError, match="Add --yes to confirm") as refused:
        grant(user.username, "--superuser")
    question = str(refused.value)
    assert f"{user.username} is the account pk:{user.pk}." in question
    assert "It belongs to a person of default, first seen 2026-11-24T12:00:00+00:00, last seen 2026" in question
    assert "can reveal the claims of all persons and change all permissions; 1 are active now." in question
    assert privileges(user) == (False, False, set())
    assert changes(user) == []


@pytest.mark.sqlite
@pytest.mark.parametrize(("answer", "is_granted"), [("yes", True), ("y", False)])
def test_terminal_asks_for_the_confirmation(user: Any, answer: str, is_granted: bool) -> None:
    status, output = run_on_terminal("admin", "grant", user.username, prompt=b"Type yes: ", answer=answer)
    assert (status == 0, privileges(user)[0]) == (is_granted, is_granted), output
    assert (b"Nothing was granted." in output) is not is_granted


def test_unknown_account_is_refused_with_the_command_that_lists_accounts(user: Any) -> None:
    with pytest.raises(CommandError, match=r"There is no user amina\. `manage.py phi_oidc subject list` shows who"):
        grant("amina", "--yes")


def test_inactive_account_is_refused(user: Any) -> None:
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    with pytest.raises(CommandError, match=r"is not active\. Activate the account first"):
        grant(user.username, "--yes")
    assert privileges(user) == (False, False, set())
    get_user_model().objects.filter(pk=user.pk).update(is_active=True)
    grant(user.username, "--yes")
    assert privileges(user)[0]


def test_account_without_a_person_is_refused_unless_it_is_a_local_account(settings: Any) -> None:
    """The person who is linked later would be an administrator."""
    account = get_user_model().objects.create_user("night-amina", password="correct horse battery staple")
    with pytest.raises(CommandError, match=r"No person is linked to night-amina\. Ask the person to sign in first"):
        grant("night-amina", "--yes")
    assert privileges(account) == (False, False, set())
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, BREAK_GLASS_ACCOUNTS=["night-amina"])
    settings.AUTHENTICATION_BACKENDS = [
        *settings.AUTHENTICATION_BACKENDS,
        "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend",
    ]
    grant("night-amina", "--yes")
    assert privileges(account)[0]


def test_only_existing_groups_of_this_app_are_accepted(user: Any) -> None:
    Group.objects.create(name="clinicians")
    with pytest.raises(CommandError, match="`phi_oidc groups` creates no group clinicians"):
        grant(user.username, "--group", "clinicians", "--yes")
    with pytest.raises(CommandError, match=r"There is no group Security officer yet\. Run `manage.py phi_oidc groups`"):
        grant(user.username, "--group", OFFICER, "--yes")
    assert privileges(user) == (False, False, set())
    make_groups()
    grant(user.username, "--group", OFFICER, "--yes")
    assert privileges(user) == (True, False, {OFFICER})


@pytest.mark.usefixtures("_groups")
def test_nothing_is_granted_if_its_event_cannot_be_written(user: Any, settings: Any) -> None:
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"audit_mac": lambda: []})
    with pytest.raises(CommandError, match="audit_mac"):
        grant(user.username, "--group", OFFICER, "--yes")
    settings.PHI_OIDC = with_keys
    assert privileges(user) == (False, False, set())
    assert changes(user) == []


@pytest.mark.usefixtures("_groups")
def test_sessions_that_the_change_of_groups_has_ended_are_mentioned(user: Any, settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"end_on": ["roles"]})
    assert "Sign in again" not in grant(user.username, "--yes"), "without a group, no session ends"
    assert "Sign in again" in grant(user.username, "--group", OFFICER, "--yes")


def test_project_without_an_admin_gets_the_line_that_adds_it(user: Any) -> None:
    with override_settings(ROOT_URLCONF="tests.support.portal_urls"):
        assert "Next: Add the admin to your URLs: path('admin/', admin.site.urls)." in grant(user.username, "--yes")


def test_user_model_without_the_fields_of_the_admin_is_refused(user: Any) -> None:
    with (
        override_settings(AUTH_USER_MODEL="auth.Group"),
        pytest.raises(CommandError, match="lacks the field for is_staff"),
    ):
        validate_roles([STAFF])
    validate_roles([STAFF])


@pytest.mark.usefixtures("_groups")
def test_withdrawal_ends_the_access_with_an_event(user: Any) -> None:
    grant(user.username, "--group", OFFICER, "--superuser", "--yes")
    user.groups.add(Group.objects.create(name="clinicians"))
    before = len(changes(user))
    loss = rf"lose is_staff, is_superuser, the group {OFFICER}\. Other active accounts with is_staff: 0\. Add --yes"
    with pytest.raises(CommandError, match=loss):
        run("withdraw", user.username)
    assert privileges(user) == (True, True, {OFFICER, "clinicians"})
    output = run("withdraw", user.username, "--yes")
    lost = f"is_staff, is_superuser, the group {OFFICER}. Other active accounts with is_staff: 0"
    assert output == f"{user.username} lost {lost}.\n"
    assert privileges(user) == (False, False, {"clinicians"}), "groups of the project stay"
    merged = {key: names for _, detail in changes(user)[before:] for key, names in detail.items()}
    assert merged == {"withdrawn": ["is_staff", "is_superuser"], "removed": [OFFICER]}
    assert run("withdraw", user.username, "--yes") == f"{user.username} had no access to the admin.\n"


def test_access_of_an_inactive_account_without_a_person_can_be_withdrawn() -> None:
    account = get_user_model().objects.create_superuser("former", is_active=False)
    run("withdraw", "former", "--yes")
    assert privileges(account) == (False, False, set())
    with pytest.raises(CommandError, match="There is no user nobody"):
        run("withdraw", "nobody", "--yes")
