"""What all `phi_oidc` subcommands have in common: help, JSON, dry runs, Django's options and exit statuses."""

import io
import json
import os
import re
import subprocess
import sys
import uuid
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command, load_command_class
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import outbox
from django_phi_oidc.audit.events import register_actions
from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.crypto import keyring
from django_phi_oidc.management.commands.phi_oidc import list_subcommands
from tests.support import databases
from tests.support.manual_blocks import PAGES
from tests.support.subject_linking import KEY_1, sign_in
from tests.unit.contrib.siem.test_tasks import declare
from tests.unit.management.commands.test_command_actors import (
    ELSEWHERE,
    READING,
    RECORDING,
    Case,
    case,  # noqa: F401 -- fixture
    run,
    run_with_faults,
    without_a_name,
)

ROOT = Path(__file__).resolve().parents[4]
COMMAND = load_command_class("django_phi_oidc", "phi_oidc")
PARSER = COMMAND.create_parser("manage.py", "phi_oidc")
LEAVES = dict(list_subcommands(COMMAND.subcommands))
DJANGO_OPTIONS = {option for action in PARSER._actions for option in action.option_strings}
IMPERATIVES = {
    *(
        "Ask",
        "Attach",
        "Attack",
        "Check",
        "Continue",
        "Create",
        "Deliver",
        "Delete",
        "Encrypt",
        "End",
        "Erase",
        "Explain",
    ),
    *("Export", "Generate", "Give", "Keep", "Link", "List", "Move", "Operate", "Place", "Print", "Recompute", "Record"),
    *("Register", "Retry", "Return", "Revoke", "Seal", "Show", "Test", "Verify", "Withdraw", "Write"),
}


def list_parsers(parser: ArgumentParser, name: str = "phi_oidc") -> list[tuple[str, ArgumentParser]]:
    """Return the parser, its subparsers, theirs, and so on."""
    found = [(name, parser)]
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for word, subparser in action.choices.items():
                found += list_parsers(subparser, f"{name} {word}")
    return found


PARSERS = dict(list_parsers(PARSER))


# Help


@pytest.mark.parametrize("name", PARSERS)
def test_help_of_a_subcommand_is_an_imperative_sentence(name: str) -> None:
    text = PARSERS[name].description or ""
    assert text.partition(" ")[0].rstrip(",") in IMPERATIVES
    assert re.fullmatch(r"[A-Z][^\n]*[^.\s]\.", text)


@pytest.mark.parametrize("name", PARSERS)
def test_each_argument_has_a_help_text_that_is_a_sentence(name: str) -> None:
    for action in PARSERS[name]._actions:
        if isinstance(action.choices, dict):
            assert {choice.help for choice in action._choices_actions} == {  # type: ignore[attr-defined]
                parser.description for parser in action.choices.values()
            }
        elif not DJANGO_OPTIONS.intersection(action.option_strings):
            assert re.fullmatch(r"[A-Z][^\n]*[^.\s]\.", action.help or ""), (action.dest, action.help)


def test_help_names_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call_command("phi_oidc", "audit", "verify", "--help")
    assert stopped.value.code == 0
    assert "Exit status: 0 if it succeeds; 1 if it fails, or finds a fault; 2 for wrong" in capsys.readouterr().out


# JSON


def read_documented_members() -> dict[str, set[str]]:
    section = PAGES["commands"].read_text().partition("\n## JSON\n")[2].partition("\n## ")[0]
    members: dict[str, set[str]] = {}
    for names, text in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|$", section, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", names):
            members[name] = {*re.findall(r"`(\w+)`", text)}
    return members


DOCUMENTED_MEMBERS = read_documented_members()


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
@pytest.mark.parametrize("name", sorted(RECORDING.keys() | READING.keys()))
def test_json_is_one_object_per_line_and_nothing_else(name: str, case: Case) -> None:
    build: Callable[[Case], list[Any]] = RECORDING[name][0] if name in RECORDING else READING[name]
    out = io.StringIO()
    words = [*name.split(), *map(str, build(case)), "--json"]
    fault = ""
    try:
        call_command("phi_oidc", *words, stdout=out, stderr=io.StringIO(), skip_checks=True)
    except CommandError as error:
        fault = str(error)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert all(isinstance(row, dict) for row in rows)
    assert rows or fault or name in WITHOUT_ROWS
    printed = {member for row in rows for member in row}
    assert name in OWN_DOCUMENTS or printed <= DOCUMENTED_MEMBERS[name]


OWN_DOCUMENTS = {"audit export", "subject export"}
"""Those whose members another page documents."""
WITHOUT_ROWS = {"audit export", "hold list", "subject accounting"}
"""Those that have nothing to list in these cases."""


def test_each_subcommand_can_write_json_and_its_members_are_documented() -> None:
    assert DOCUMENTED_MEMBERS.keys() - {"scrub --report"} == LEAVES.keys()
    assert LEAVES.keys() == RECORDING.keys() | READING.keys() | ELSEWHERE
    for parser in LEAVES.values():
        assert "--json" in {option for action in parser._actions for option in action.option_strings}


# Dry runs


def prepare_key(case: Case) -> list[Any]:
    sign_in([KEY_1, *keyring.get_keys("subject")])
    return [KEY_1.id]


def prepare_code(case: Case) -> list[Any]:
    run("subject", "invite", case.user)
    return ["--revoke", case.user]


def prepare_claims(case: Case) -> list[Any]:
    case.expire_claims()
    return []


def prepare_revocation(case: Case) -> list[Any]:
    case.queue_revocation()
    return ["--seconds", "0"]


DRY_RUNS: dict[str, Callable[[Case], list[Any]]] = {
    "admin withdraw": lambda case: [case.make_staff(), "--yes"],
    "audit set-aside drop": lambda case: [case.set_event_aside(), "--reason", "x"],
    "groups": lambda case: [],
    "hold release": lambda case: [case.place_hold()],
    "keys retire": prepare_key,
    "scim attach": lambda case: case.create_scim_user(),
    "scim revoke": lambda case: [case.create_scim_client()],
    "scrub": prepare_claims,
    "scrub --user": lambda case: [case.user],
    "sessions end": lambda case: [case.person.session_id, "--seconds", "0"],
    "sessions end --all": lambda case: ["--yes", "--seconds", "0"],
    "sessions retry": prepare_revocation,
    "subject erase": lambda case: [case.subject, "--yes"],
    "subject erase --user": lambda case: [case.user, "--yes"],
    "subject invite": prepare_code,
    "subject link --csv": lambda case: [case.write_file("subs.csv", f"user,sub\npk:{case.staff.pk},a sub\n")],
    "subject unlink": lambda case: [case.subject],
}
KEEPING = {
    *("admin grant", "apps", "scim rotate"),
    *("attack", "configuration record", "configuration show", "delivery deliver", "delivery status", "doctor"),
    *("audit archive", "audit check-export", "audit check-proof", "audit checkpoint", "audit consistency"),
    *("audit attach", "audit drain", "audit export", "audit grants", "audit partition", "audit prove", "audit repair"),
    *("audit resume", "audit seal", "audit tiles", "audit witnesses"),
    *("audit verify", "audit set-aside list", "audit set-aside retry"),
    *(
        "evidence",
        "evidence verify",
        "hold list",
        "hold place",
        "init",
        "scim create",
        "scim list",
        "keys generate",
        "keys rotate",
        "keys status",
    ),
    *("migrate-from allauth", "migrate-from mozilla"),
    *("signals add", "signals create", "signals delete", "signals list", "signals poll", "signals remove"),
    *("signals status", "signals update", "signals verify"),
    *("register", "roles explain", "sessions list", "subject accounting", "subject export", "subject list"),
}
"""Subcommands that delete and end nothing."""


WITHOUT_COUNTS = {"admin withdraw", "groups", "hold release", "scim attach", "scim revoke", "subject unlink"}


def read_rows() -> dict[str, list[str]]:
    return {
        model._meta.label: sorted(map(repr, model._base_manager.values_list()))
        for model in apps.get_models()
        if model._meta.managed
    }


def run_json(*words: object) -> list[dict[str, Any]]:
    """Return the rows, also if the subcommand reports a fault."""
    out = io.StringIO()
    with suppress(CommandError):
        call_command("phi_oidc", *map(str, words), "--json", stdout=out, stderr=io.StringIO(), skip_checks=True)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_each_subcommand_that_deletes_or_ends_something_has_a_dry_run() -> None:
    offered = {name for name, parser in LEAVES.items() if "--dry-run" in parser.format_help()}
    assert offered == {name.partition(" --")[0] for name in DRY_RUNS}
    assert LEAVES.keys() - offered == KEEPING


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
@pytest.mark.parametrize("name", DRY_RUNS)
def test_dry_run_shows_what_is_affected_and_changes_nothing(
    name: str,
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*name.split(), *DRY_RUNS[name](case)]
    outbox.flush()
    before = read_rows()
    with monkeypatch.context() as context:
        # No event is recorded, so no operator is needed.
        without_a_name(context)
        text, rows = run(*words, "--dry-run"), run_json(*words, "--dry-run")
    assert read_rows() == before
    assert rows[-1]["dry_run"] is True
    assert text.splitlines()[-1].startswith("Dry run: ")
    done = run_json(*words)
    assert read_rows() != before
    counts = {key: value for key, value in done[-1].items() if type(value) is int and key != "revoked"}
    assert {key: rows[-1][key] for key in counts} == counts
    assert any(counts.values()) == (name not in WITHOUT_COUNTS)


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
@pytest.mark.parametrize("name", ["scrub --user", "subject erase", "subject unlink"])
def test_dry_run_is_refused_if_a_legal_hold_would_prevent_it(name: str, case: Case) -> None:
    words = [*name.split(), *DRY_RUNS[name](case)]
    run(*words, "--dry-run")
    case.place_hold()
    for further in ([], ["--dry-run"]):
        assert "A legal hold protects" in run_with_faults(*words, *further)


# Options of Django


@pytest.mark.parametrize("name", PARSERS)
def test_options_of_django_come_before_and_after_a_subcommand(name: str) -> None:
    assert {option for action in PARSERS[name]._actions for option in action.option_strings} >= DJANGO_OPTIONS


@pytest.mark.parametrize(
    ("line", "verbosity"),
    [
        ("hold list", 1),
        ("-v 2 hold list", 2),
        ("hold -v 2 list", 2),
        ("hold list -v 2", 2),
        ("hold list --verbosity=0", 0),
        ("-v 0 hold list -v 3", 3),
        ("evidence verify f --public-key k -v 2", 2),
    ],
)
def test_last_value_of_an_option_of_django_counts(line: str, verbosity: int) -> None:
    assert PARSER.parse_args(line.split()).verbosity == verbosity


def run_django(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run django-admin without DJANGO_SETTINGS_MODULE."""
    named = {alias: connections[alias].settings_dict for alias in databases.ALIASES}
    environment = {**databases.child_environment(os.environ, named), "PYTHONPATH": ""}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    words = (*words, "--settings", "tests.settings", "--pythonpath", ROOT)
    return subprocess.run(
        [sys.executable, "-m", "django", "phi_oidc", *map(str, words)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


MISSING = uuid.UUID(int=4)


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
@pytest.mark.parametrize(
    ("line", "status", "output", "error"),
    [
        ("hold list --skip-checks", 0, "There are no holds.", ""),
        ("hold list --json", 0, "", ""),
        (f"hold release {MISSING}", 1, "", f"CommandError: There is no hold {MISSING}."),
        ("hold release x", 2, "", "phi_oidc hold release: error: argument HOLD_ID: invalid UUID value: 'x'"),
        ("hold lst", 2, "", "phi_oidc hold: error: argument SUBCOMMAND: invalid choice: 'lst' (choose from "),
        ("hold", 2, "", "phi_oidc hold: error: the following arguments are required: SUBCOMMAND"),
        ("sessions end", 2, "", "CommandError: Name sessions, --user, --provider, --group, --before, or --all."),
        ("doctor other", 2, "", "CommandError: There is no provider other. Did you mean default?"),
        ("attack --only other", 2, "", "CommandError: There is no attack for other."),
        ("sessions end --user other", 1, "", "CommandError: There is no user other."),
    ],
)
def test_exit_status_and_error_of_a_process(line: str, status: int, output: str, error: str) -> None:
    done = run_django(*line.split())
    assert (done.returncode, done.stdout.strip()) == (status, output), done.stderr
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == (1 if status else 0)


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_traceback_and_verbosity_after_a_subcommand() -> None:
    done = run_django("hold", "release", MISSING, "--traceback")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    done = run_django("scrub", "-v", "2")
    assert done.stdout == "0 claims were erased.\n"
    actor, seconds = done.stderr.splitlines()
    assert actor == f"The actor of the events is {build_operator_actor()}."
    assert re.fullmatch(r"scrub took \d+\.\d s\.", seconds)
    assert run_django("scrub", "-v", "0").stdout == ""
    assert json.loads(run_django("scrub", "-v", "0", "--json").stdout) == {"claims": 0, "retention_keys": 0}


@pytest.mark.django_db(databases=["default", "phi_audit"])
def test_database_error_is_one_sentence(settings: Any) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("ALTER TABLE phi_oidc_legal_holds_legalhold RENAME TO away")
    with pytest.raises(CommandError, match=r"^Database error: [^\n]+$"):
        call_command("phi_oidc", "hold", "list", stdout=io.StringIO(), skip_checks=True)


@pytest.mark.django_db(databases=["default", "phi_audit"])
@pytest.mark.parametrize(("option", "is_coloured"), [("--force-color", True), ("--no-color", False)])
def test_colour_is_that_of_the_option(option: str, is_coloured: bool, settings: Any, tmp_path: Path) -> None:
    declare(settings, archive={"type": "file", "path": tmp_path / "log"})
    SinkCursor.objects.create(name="archive", due_at=clock.now(), attempts=1, last_fault="file_unwritable")
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"^Broken sinks: archive \(failing\)\.$"):
        call_command("phi_oidc", "delivery", "status", option, stdout=out, skip_checks=True)
    assert ("\x1b[" in out.getvalue()) == is_coloured


# Wrong arguments

WRONG_ARGUMENTS = {
    "admin grant USER": "Add --yes to confirm.",
    "admin grant USER --group clinicians --yes": "`phi_oidc groups` creates no group clinicians.",
    "sessions end --foreign --all --yes": "--foreign permits only --user, --provider, --yes, --seconds and --dry-run.",
    "sessions list --foreign --pending": "--foreign permits only --user and --limit.",
    "subject erase --user USER": "Add --yes to confirm.",
    "subject link --user USER --dry-run": "--dry-run requires --csv.",
    "subject link --user USER": "Several providers are declared. Add --provider: default, other.",
}


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
@pytest.mark.parametrize("line", WRONG_ARGUMENTS)
def test_wrong_arguments_have_status_2(line: str, case: Case, settings: Any) -> None:
    providers = settings.PHI_OIDC["PROVIDERS"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {**providers, "other": providers["default"]}}
    before = read_rows()
    with pytest.raises(CommandError) as refused:
        run(*line.replace("USER", case.user).split())
    assert WRONG_ARGUMENTS[line] in str(refused.value)
    assert refused.value.returncode == 2
    assert read_rows() == before


@pytest.mark.parametrize("name", sorted(PARSERS.keys() - {"phi_oidc", *(f"phi_oidc {leaf}" for leaf in LEAVES)}))
def test_usage_names_the_place_of_a_further_subcommand(name: str) -> None:
    assert PARSERS[name].format_usage().rstrip().endswith(" SUBCOMMAND ...")


# Closed sets


TYPING_ERRORS = {
    "audit export --action login.suceeded": "there is no action login.suceeded. Did you mean login.succeeded",
    "audit export --action nothing": "there is no action nothing.",
    "audit export --outcome failed": "there is no outcome failed. Did you mean failure?",
    "keys status --database defualt": "there is no database defualt. Did you mean default?",
    "admin grant USER --yes --group Helpdesk": "`phi_oidc groups` creates no group Helpdesk. Did you mean Help desk?",
    "attack --only iss_invald": "There is no attack for iss_invald. Did you mean iss_invalid",
    "attack --provider defualt": "There is no provider defualt. Did you mean default?",
    "doctor defualt": "There is no provider defualt. Did you mean default?",
    "register defualt --portal https://h --output f": "There is no provider defualt. Did you mean default?",
    "roles explain --claims - --provider defualt": "There is no provider defualt. Did you mean default?",
    "sessions list --provider defualt": "There is no provider defualt. Did you mean default?",
    "sessions end --provider defualt": "There is no provider defualt. Did you mean default?",
    "subject invite --revoke USER --provider defualt": "There is no provider defualt. Did you mean default?",
    "subject invite USER --provider defualt": "There is no provider defualt. Did you mean default?",
    "subject link --user USER --provider defualt": "There is no provider defualt. Did you mean default?",
    f"hold place {MISSING} --reason x --purpose HLEGL": "there is no suspendable purpose HLEGL. Did you mean HLEGAL?",
}


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
@pytest.mark.parametrize("line", TYPING_ERRORS)
def test_typing_error_is_refused_with_the_nearest_names(line: str, case: Case) -> None:
    before = read_rows()
    assert TYPING_ERRORS[line] in run_with_faults(*line.replace("USER", case.user).split())
    assert read_rows() == before


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_export_accepts_actions_of_the_project(case: Case) -> None:
    assert "there is no action" in run_with_faults("audit", "export", "--action", "conventions_test.done")
    register_actions({"conventions_test.done": ()})
    assert run_with_faults("audit", "export", "--action", "conventions_test.done") == ""
    assert run_with_faults("audit", "export", "--action", "claim.stored", "--outcome", "success") == ""
