"""`manage.py phi_oidc`, as an operator types it."""

import io

import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.management.commands.phi_oidc import SUBCOMMANDS
from tests.claims.conftest import DAY, NOW, Person

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
EMPTY = {"audit": ["drain"], "keys": ["status"], "scrub": [], "sessions": ["retry"], "subject": ["list"]}


def run(*words: str) -> str:
    out = io.StringIO()
    call_command("phi_oidc", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_each_subcommand_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        call_command("phi_oidc", name, "--help")
    assert left.value.code == 0
    assert (SUBCOMMANDS[name].__doc__ or "").split("\n")[0] in " ".join(capsys.readouterr().out.split())


def test_scrub_erases_what_is_due() -> None:
    Person().store({"address": {"locality": "Stockholm"}, "birthdate": "1984-03-09"}, now=NOW - 2 * DAY)
    assert run("scrub") == "1 claims were erased.\n"
    assert [claim.name for claim in StoredClaim.objects.all()] == ["birthdate"]


def test_scrub_of_a_user_erases_all_of_that_person() -> None:
    person, other = Person(), Person()
    for each in (person, other):
        each.store({"birthdate": "1984-03-09"})
    assert run("scrub", "--user", str(person.user.pk)) == "1 claims were erased.\n"
    assert [claim.subject for claim in StoredClaim.objects.all()] == [other.subject]


@pytest.mark.parametrize("pk", ["0", "nobody", ""])
def test_scrub_of_nobody_is_an_error(pk: str) -> None:
    person = Person()
    person.store({"birthdate": "1984-03-09"})
    with pytest.raises(CommandError, match="no user"):
        run("scrub", "--user", pk)
    assert StoredClaim.objects.count() == 1


def test_subcommand_that_is_missing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError):
        call_command("phi_oidc")


@pytest.mark.parametrize(("name", "words"), EMPTY.items(), ids=EMPTY)
def test_subcommand_with_nothing_to_do_ends_well(name: str, words: list[str]) -> None:
    assert run(name, *words) != ""
