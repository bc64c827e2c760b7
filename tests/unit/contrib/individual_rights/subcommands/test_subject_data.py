"""`manage.py phi_oidc subject export` and `erase`, run as an operator does and as on the pages."""

import io
import json
import os
import re
import shlex
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.models import PairwiseSubject
from django_phi_oidc.subjects.pairwise import get_pairwise_id
from tests.settings import key
from tests.support.audit_log import PEM
from tests.support.audit_outage import audit_database_fails
from tests.support.claims_fixtures import DECLARED, NOW, Person
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.unit.management.terminal import run_on_terminal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ROOT = Path(__file__).resolve().parents[5]
PAGE = (ROOT / "docs" / "how-to" / "privacy-requests.md").read_text()
CANARY = "claim-canary-Bern-7c1f"
HOLD = """\
$ python manage.py phi_oidc hold place 5e1f0c9a-7f0e-4d0b-9a51-4f3c2d7a6b10 --reason "Docket 26-117"
Hold 0b6f3c52-9a8e-4f7d-8c61-2d5e7a9b1c34 keeps the data of subject 5e1f0c9a-7f0e-4d0b-9a51-4f3c2d7a6b10.
$ python manage.py phi_oidc subject erase 5e1f0c9a-7f0e-4d0b-9a51-4f3c2d7a6b10 --yes
CommandError: Nothing was erased. A legal hold protects the data of this person. Release it first.
$ python manage.py phi_oidc hold list
0b6f3c52-9a8e-4f7d-8c61-2d5e7a9b1c34  5e1f0c9a-7f0e-4d0b-9a51-4f3c2d7a6b10  placed 2026-11-24T12:00:00+00:00, \
until it is released: Docket 26-117
$ python manage.py phi_oidc hold release 0b6f3c52-9a8e-4f7d-8c61-2d5e7a9b1c34
Hold 0b6f3c52-9a8e-4f7d-8c61-2d5e7a9b1c34 was released.
"""


@pytest.fixture(autouse=True)
def _at_noon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    options = {"CLAIMS": DECLARED, "KEYS": {"pairwise": key("test pairwise key"), "audit_signing": PEM}}
    with (
        override_settings(PHI_OIDC=override_phi_oidc(django_settings.PHI_OIDC, **options)),
        clock.override_clock(lambda: NOW),
    ):
        yield


@pytest.fixture
def person() -> Person:
    """Return a signed-in person with two claims and a pairwise identifier."""
    person = Person()
    person.store({"birthdate": "1990-05-17", "address": {"locality": CANARY, "ünï": "Zoë\u202e"}})
    OIDCSession.objects.filter(pk=person.session_id).update(auth_time=NOW)
    get_pairwise_id(person.user, "billing.example.test")
    return person


def run(*words: object, command: str = "subject") -> str:
    out = io.StringIO()
    call_command("phi_oidc", command, *map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def run_line(line: str) -> str:
    """Run a command line of a page and return its output and error."""
    words = shlex.split(line)
    assert words[:3] == ["python", "manage.py", "phi_oidc"]
    try:
        return run(*words[4:], command=words[3])
    except CommandError as fault:
        return f"CommandError: {fault}\n"


def page_commands(name: str) -> list[tuple[str, str]]:
    """Return the commands of that block of the page, each with its output."""
    match = re.search(rf"<!-- tested: {name} -->\n```console\n(.*?)```", PAGE, re.DOTALL)
    assert match, name
    return split_console(match[1])


def split_console(text: str) -> list[tuple[str, str]]:
    """Return each command after a "$ " with its output."""
    return [(command, printed) for command, _, printed in (part.partition("\n") for part in text.split("$ ")[1:])]


@pytest.mark.parametrize("name", ["report", "export", "erase"])
def test_page_shows_commands_and_their_output(name: str, person: Person) -> None:
    ((command, printed),) = page_commands(name)
    get_user_model()._default_manager.filter(pk=person.user.pk).update(username="amina")
    assert run_line(command) == printed


def test_hold_prevents_erasure_until_it_is_released(person: Person) -> None:
    place, *further = split_console(HOLD)
    subject = "5e1f0c9a-7f0e-4d0b-9a51-4f3c2d7a6b10"
    hold_shown = "0b6f3c52-9a8e-4f7d-8c61-2d5e7a9b1c34"
    placed = run_line(place[0].replace(subject, str(person.subject.uuid)))
    names = {subject: str(person.subject.uuid), hold_shown: str(LegalHold.objects.get().pk)}

    def adapt(text: str) -> str:
        for old, new in names.items():
            text = text.replace(old, new)
        return text

    assert placed == adapt(place[1])
    for command, printed in further:
        assert run_line(adapt(command)) == adapt(printed)
    assert run_line(adapt(further[0][0])).startswith(f"User {person.user.get_username()}: 1 subjects, 2 claims")


@pytest.mark.parametrize("by", ["uuid", "user"])
def test_export_writes_a_new_file_only_its_owner_can_read(by: str, person: Person, tmp_path: Path) -> None:
    selection = [person.subject.uuid] if by == "uuid" else ["--user", person.user.get_username()]
    path = tmp_path / "person.json"
    before = os.umask(0)
    try:
        output = run("export", *selection, "--output", path)
    finally:
        os.umask(before)
    assert output == f"The data of user {person.user.get_username()} is in {path}.\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = json.loads(path.read_text("utf-8"))
    (subject,) = document["subjects"]
    assert {claim["name"]: claim["value"] for claim in subject["claims"]} == {
        "birthdate": "1990-05-17",
        "address": {"locality": CANARY, "ünï": "Zoë\u202e"},
    }
    assert "Zoë" in path.read_text("utf-8"), "not escaped in a file"
    assert (len(document["sessions"]), len(document["identifiers"])) == (1, 1)


@pytest.mark.parametrize("is_linked", [True, False])
def test_export_warns_if_no_person_is_linked(is_linked: bool, person: Person) -> None:
    user = person.user if is_linked else get_user_model()._default_manager.create_user(username="unlinked")
    err = io.StringIO()
    call_command("phi_oidc", "subject", "export", "--user", f"pk:{user.pk}", stdout=io.StringIO(), stderr=err)
    assert ("No person is linked to user unlinked" in err.getvalue()) is not is_linked


def test_export_to_standard_output_is_escaped(person: Person) -> None:
    output = run("export", person.subject.uuid)
    assert output.isascii()
    assert json.loads(output)["subjects"][0]["claims"][0]["value"]["ünï"] == "Zoë\u202e"


def test_export_overwrites_no_file_and_records_nothing(person: Person, tmp_path: Path) -> None:
    path, link = tmp_path / "person.json", tmp_path / "link.json"
    path.write_text("old")
    link.symlink_to(tmp_path / "elsewhere.json")
    for taken in (path, link, tmp_path / "no folder" / "person.json"):
        with pytest.raises(CommandError, match="cannot be created"):
            run("export", person.subject.uuid, "--output", taken)
    assert path.read_text() == "old"
    assert not AuditEvent.objects.filter(action="subject.exported").exists()


def test_export_without_the_audit_log_exports_nothing(person: Person, tmp_path: Path) -> None:
    path, out = tmp_path / "person.json", io.StringIO()
    for words in (["--output", str(path)], []):
        with audit_database_fails(), pytest.raises(CommandError, match="Nothing was exported"):
            call_command("phi_oidc", "subject", "export", str(person.subject.uuid), *words, stdout=out)
    assert (out.getvalue(), path.exists()) == ("", False)
    run("export", person.subject.uuid, "--output", path)
    assert CANARY in path.read_text("utf-8")


def test_export_with_an_unreadable_claim_exports_the_rest_and_fails(person: Person, tmp_path: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_phi_oidc_storedclaim SET value = 'damaged' WHERE name = 'birthdate'")
    path = tmp_path / "person.json"
    with pytest.raises(CommandError, match=r"Some data could not be read: claim birthdate\."):
        run("export", person.subject.uuid, "--output", path)
    document = json.loads(path.read_text("utf-8"))
    assert [claim.get("value", "none") for claim in document["subjects"][0]["claims"]][1:] == ["none"]
    assert CANARY in path.read_text("utf-8")


@pytest.mark.parametrize("act", [["export"], ["erase", "--yes"]])
def test_unknown_person_is_an_error(act: list[str], person: Person) -> None:
    for selection, fault in (
        ([uuid.uuid4()], "There is no subject"),
        (["--user", "0"], "There is no user 0"),
        ([], "required"),
        ([person.subject.uuid, "--user", "x"], "not allowed with"),
        (["amina"], "invalid UUID"),
    ):
        with pytest.raises(CommandError, match=fault):
            run(*act, *selection)
    assert StoredClaim.objects.count() == 2
    assert not AuditEvent.objects.filter(action="subject.exported").exists()


def test_erase_keeps_the_audit_log_intact(person: Person) -> None:
    run("seal", command="audit")
    assert run("erase", person.subject.uuid, "--yes") == (
        f"User {person.user.get_username()}: 1 subjects, 2 claims, 1 sessions, 1 pairwise identifiers and 0 invitations"
        " were erased. The account was not deleted.\n"
    )
    for model in (StoredClaim, PairwiseSubject, OIDCSession):
        assert not model.objects.exists()
    run("seal", command="audit")
    expected = f"{AuditEvent.objects.count()} sealed events"
    assert run("verify", command="audit").startswith(expected)
    assert AuditEvent.objects.filter(subject=str(person.subject.uuid), action="login.succeeded").count() == 1


def test_erase_without_yes_is_refused_without_a_terminal(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    with pytest.raises(CommandError, match=r"will be erased permanently\. Add --yes"):
        run("erase", person.subject.uuid)
    assert StoredClaim.objects.count() == 2


def test_unlink_of_a_held_person_is_refused(person: Person) -> None:
    place_hold(person.subject.uuid, reason="Docket 26-117", until=None, origin=Origin(), now=NOW)
    for act in (["unlink"], ["erase", "--yes"]):
        with pytest.raises(CommandError, match=r"Nothing was erased.* A legal hold protects"):
            run(*act, person.subject.uuid)
    assert (StoredClaim.objects.count(), OIDCSession.objects.filter(ended_at=None).count()) == (2, 1)


@pytest.mark.sqlite
@pytest.mark.parametrize(("answer", "status", "left"), [("no", 1, 2), ("", 1, 2), ("yes", 0, 0)])
def test_erase_on_a_terminal_asks_for_confirmation(answer: str, status: int, left: int, person: Person) -> None:
    status_code, output = run_on_terminal(
        "subject", "erase", str(person.subject.uuid), prompt=b"Type yes: ", answer=answer
    )
    assert str(person.subject.uuid).encode() in output
    assert (status_code, StoredClaim.objects.count()) == (status, left), output
