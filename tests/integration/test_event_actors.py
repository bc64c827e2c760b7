"""An event names who caused it: the user of a request, also where a receiver records it, and the operator of any
management command."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.sessions.models import OIDCSession
from tests.integration.test_admin_groups import ROOT, member  # noqa: F401 -- a fixture
from tests.support import databases
from tests.support.person_page_fixtures import _at_noon, officer, patient  # noqa: F401 -- fixtures
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import SignedIn, op, sign_in  # noqa: F401 -- fixtures

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
REPOSITORY = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"


def delete_session_row(request: HttpRequest) -> HttpResponse:
    """Delete the row of another person's session, as a page of a host project might."""
    OIDCSession.objects.exclude(user=request.user.pk).get().delete()
    return HttpResponse(status=302)


urlpatterns = [path("delete-session-row/", delete_session_row), path("", include("tests.urls"))]


def get_user_page(signed_in: SignedIn, name: str) -> str:
    return f"/admin/auth/user/{signed_in.user.pk}/{name}/"


def deactivate(client: Any, person: SignedIn) -> Any:
    form = {"username": person.user.get_username(), "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    return client.post(get_user_page(person, "change"), form)


def change_password(client: Any, person: SignedIn) -> Any:
    form = {"usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    return client.post(get_user_page(person, "password"), form)


def change_roles(client: Any, person: SignedIn) -> Any:
    group = Group.objects.create(name="nurses")
    form = {
        "username": person.user.get_username(),
        "date_joined_0": "2026-01-01",
        "date_joined_1": "00:00:00",
        "is_active": "on",
        "groups": [group.pk],
    }
    return client.post(get_user_page(person, "change"), form)


def delete_account(client: Any, person: SignedIn) -> Any:
    return client.post(get_user_page(person, "delete"), {"post": "yes"})


def unlink(client: Any, person: SignedIn) -> Any:
    return client.post(f"/admin/django_phi_oidc/pairwisesubject/{person.subject.pk}/delete/", {"post": "yes"})


def delete_row(client: Any, person: SignedIn) -> Any:
    return client.post("/delete-session-row/")


CHANGES: dict[str, tuple[Callable[[Any, SignedIn], Any], str, set[str]]] = {
    "deactivation": (deactivate, "user_inactive", {"session.ended", "claim.scrubbed"}),
    "password": (change_password, "password_changed", {"session.ended", "claim.scrubbed"}),
    "roles": (change_roles, "roles_changed", {"session.ended", "claim.scrubbed", "role.changed"}),
    "account": (delete_account, "subject_unlinked", {"session.ended", "claim.scrubbed", "subject.unlinked"}),
    "link": (unlink, "subject_unlinked", {"session.ended", "claim.scrubbed", "subject.unlinked"}),
    "row": (delete_row, "row_deleted", {"session.ended", "claim.scrubbed"}),
}
"""Change → the request, why the session ended, and the events that receivers record."""


@pytest.mark.parametrize("change", CHANGES)
def test_t4_events_that_a_request_causes_name_its_user(change: str, patient: Any, member: Any, settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"end_on": ["password", "roles"]})
    act, reason, actions = CHANGES[change]
    administrator = member(ROOT)
    before = set(AuditEvent.objects.values_list("pk", flat=True))
    answer = act(administrator, patient)
    assert answer.status_code == 302, answer.content.decode()
    caused = AuditEvent.objects.filter(action__in=actions).exclude(pk__in=before)
    assert set(caused.values_list("action", "actor")) == {(action, str(administrator.user.pk)) for action in actions}
    assert set(caused.filter(action="session.ended").values_list("reason", flat=True)) == {reason}


COMMAND_LINE = """
import sys, threading
from django.core.management import execute_from_command_line
execute_from_command_line(["portal-admin", *sys.argv[1:]])
"""
CALL = """
import sys, django
django.setup()
from django.core.management import call_command
call_command(*sys.argv[1:])
"""
CREATE_SUPERUSER = ("createsuperuser", "--noinput", "--username", "root", "--email", "root@hospital.example")
IN_SHELL = """
from django.contrib.auth import get_user_model
get_user_model()._default_manager.create_superuser("root")
"""
IN_THREAD = f"""
import threading
thread = threading.Thread(target=exec, args=({IN_SHELL!r},))
thread.start()
thread.join()
"""


def run_process(script: str, *words: str) -> None:
    """Run a Python script with these arguments on the databases of this test."""
    named = {alias: connections[alias].settings_dict for alias in databases.ALIASES}
    environment = databases.child_environment(os.environ, named)
    completed = subprocess.run(
        [sys.executable, "-c", script, *words],
        env={**environment, "PYTHONPATH": str(REPOSITORY), "DJANGO_SUPERUSER_PASSWORD": PASSWORD},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert completed.returncode == 0, completed.stderr


@pytest.mark.parametrize(
    "words",
    [CREATE_SUPERUSER, ("shell", "-c", IN_SHELL), ("shell", "-c", IN_THREAD)],
    ids=["createsuperuser", "shell", "thread of the shell"],
)
def test_t4_events_of_any_management_command_name_its_operator(words: tuple[str, ...]) -> None:
    run_process(COMMAND_LINE, *words)
    changed = AuditEvent.objects.filter(action="role.changed")
    assert {event.actor for event in changed} == {build_operator_actor()}


def test_t4_event_of_a_process_that_runs_no_command_has_no_actor() -> None:
    """As in a worker, whose operating system user causes nothing."""
    run_process(CALL, *CREATE_SUPERUSER)
    changed = AuditEvent.objects.filter(action="role.changed")
    assert {event.actor for event in changed} == {""}


def test_t4_person_whom_a_shell_unlinks_has_events_of_its_operator(patient: Any) -> None:
    statement = "from django_phi_oidc.subjects.models import PairwiseSubject as P; P.objects.all().delete()"
    before = set(AuditEvent.objects.values_list("pk", flat=True))
    run_process(COMMAND_LINE, "shell", "-c", statement)
    caused = AuditEvent.objects.exclude(pk__in=before)
    assert set(caused.values_list("action", "actor")) == {
        ("session.ended", build_operator_actor()),
        ("claim.scrubbed", build_operator_actor()),
        ("subject.unlinked", build_operator_actor()),
    }
