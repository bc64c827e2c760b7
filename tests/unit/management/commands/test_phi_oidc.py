"""`manage.py phi_oidc`, run as an operator does."""

import io
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.management.commands.phi_oidc import SUBCOMMANDS
from tests.support.claims_fixtures import DAY, NOW, Person
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.retention_key_folder import use_retention_keys

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
EMPTY = {
    "audit": ["drain"],
    "hold": ["list"],
    "keys": ["status"],
    "scrub": [],
    "sessions": ["retry"],
    "subject": ["list"],
}


def run(*words: str) -> str:
    out = io.StringIO()
    call_command("phi_oidc", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_each_subcommand_describes_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call_command("phi_oidc", name, "--help")
    assert stopped.value.code == 0
    assert (SUBCOMMANDS[name].__doc__ or "").split("\n")[0] in " ".join(capsys.readouterr().out.split())


def test_scrub_erases_due_claims() -> None:
    Person().store({"address": {"locality": "Stockholm"}, "birthdate": "1984-03-09"}, now=NOW - 2 * DAY)
    assert run("scrub") == "1 claims were erased.\n"
    assert [claim.name for claim in StoredClaim.objects.all()] == ["birthdate"]


def test_scrub_of_a_user_erases_all_their_claims() -> None:
    person, other = Person(), Person()
    for target in (person, other):
        target.store({"birthdate": "1984-03-09"})
    assert run("scrub", "--user", person.user.get_username()) == "1 claims were erased.\n"
    assert [claim.subject for claim in StoredClaim.objects.all()] == [other.subject]


def test_scrub_of_a_user_under_a_hold_is_refused_until_the_hold_ends() -> None:
    person = Person()
    person.store({"birthdate": "1984-03-09"})
    place_hold(person.subject.uuid, reason="matter 7", until=NOW + DAY, origin=Origin(), now=NOW)
    with (
        clock.override_clock(lambda: NOW),
        pytest.raises(CommandError, match=r"Nothing was erased\. A legal hold protects"),
    ):
        run("scrub", "--user", person.user.get_username())
    assert StoredClaim.objects.count() == 1
    with clock.override_clock(lambda: NOW + DAY):
        assert run("scrub", "--user", person.user.get_username()) == "1 claims were erased.\n"


def test_scrub_destroys_unused_retention_keys_and_prints_their_number(settings: Any, tmp_path: Path) -> None:
    keys = use_retention_keys(settings, tmp_path)
    Person().store({"address": {"locality": "Stockholm"}, "birthdate": "1984-03-09"})
    assert keys.names() == ["20261124-86400", "20261124-session"]
    with clock.override_clock(lambda: NOW + DAY - timedelta(seconds=1)):
        planned = "Dry run: 0 claims would be erased. 0 retention keys would be destroyed.\n"
        assert run("scrub", "--dry-run") == planned
        assert run("scrub") == "0 claims were erased. 0 retention keys were destroyed.\n"
    with clock.override_clock(lambda: NOW + 2 * DAY):
        planned = "Dry run: 1 claims would be erased: address 1. 1 retention keys would be destroyed.\n"
        assert run("scrub", "--dry-run") == planned
        assert keys.names() == ["20261124-86400", "20261124-session"]
        assert run("scrub") == "1 claims were erased. 1 retention keys were destroyed.\n"
    assert keys.names() == ["20261124-session"], "that claim's session lives"


def test_scrub_of_a_user_destroys_the_key_and_its_dry_run_counts_it(settings: Any, tmp_path: Path) -> None:
    use_retention_keys(settings, tmp_path)
    person, other = Person(), Person()
    for target in (person, other):
        target.store({"birthdate": "1984-03-09"})
    words = ("scrub", "--user", person.user.get_username())
    with clock.override_clock(lambda: NOW + 2 * DAY):
        assert run(*words, "--dry-run") == "Dry run: 1 claims would be erased. 1 retention keys would be destroyed.\n"
        assert StoredClaim.objects.count() == 2
        assert run(*words) == "1 claims were erased. 1 retention keys were destroyed.\n"


def test_scrub_without_access_to_the_retention_keys_erases_and_fails(settings: Any, tmp_path: Path) -> None:
    Person().store({"address": {"locality": "Stockholm"}}, now=NOW - 2 * DAY)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": tmp_path / str(uuid.uuid4())})
    with pytest.raises(CommandError, match=r"1 claims were erased\. Unused retention keys could not be destroyed"):
        run("scrub")
    assert not StoredClaim.objects.exists()


@pytest.mark.parametrize("pk", ["0", "unknown", ""])
def test_scrub_of_an_unknown_user_is_an_error(pk: str) -> None:
    person = Person()
    person.store({"birthdate": "1984-03-09"})
    with pytest.raises(CommandError, match="no user"):
        run("scrub", "--user", pk)
    assert StoredClaim.objects.count() == 1


def test_missing_subcommand_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError):
        call_command("phi_oidc")


@pytest.mark.parametrize(("name", "words"), EMPTY.items(), ids=EMPTY)
def test_subcommand_with_nothing_to_do_succeeds(name: str, words: list[str]) -> None:
    assert run(name, *words) != ""
