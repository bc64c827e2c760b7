"""The reference pages written by hand name exactly what is in the code."""

import re
from collections import defaultdict
from collections.abc import Mapping
from enum import EnumMeta
from pathlib import Path

import pytest
from django.core.management import load_command_class

import django_phi_oidc
from django_phi_oidc import schedule, urls
from django_phi_oidc.access import policy
from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.log.findings import FindingKind
from django_phi_oidc.contrib.local_accounts import break_glass
from django_phi_oidc.contrib.rest_framework.exceptions import SCOPE_MISSING, TOKEN_MISPLACED
from django_phi_oidc.management.commands.phi_oidc import list_subcommands
from tests.docs.contract import list_django_options
from tests.support.manual_blocks import PAGES
from tests.support.rule_code_catalogue import list_all_codes

PACKAGE = Path(django_phi_oidc.__file__).parent
CODES = {code.value for code in list_all_codes()}


def first_cells(page: str, heading: str = "") -> list[str]:
    """Return the first cell of each row of the tables of a page, or of one section."""
    text = PAGES[page].read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] if heading else text
    return re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", section, re.MULTILINE)


def names(page: str, heading: str = "") -> set[str]:
    return {name for cell in first_cells(page, heading) for name in re.findall(r"`([^`]+)`", cell)}


COMMAND = load_command_class("django_phi_oidc", "phi_oidc")
PARSER = COMMAND.create_parser("manage.py", "phi_oidc")
COMMANDS = dict(list_subcommands(COMMAND.subcommands))


def rows_of_commands() -> Mapping[str, list[str]]:
    """Return the rows of each command; rows of no known command are under the empty name."""
    found = defaultdict(list)
    for row in re.findall(r"^\| `.+$", PAGES["commands"].read_text().partition("\n## Options")[0], re.MULTILINE):
        shown = row.split("`")[1]
        found[max((name for name in COMMANDS if f"{shown} ".startswith(f"{name} ")), key=len, default="")].append(row)
    return found


ROWS = rows_of_commands()


def test_commands_are_documented() -> None:
    assert set(ROWS) == set(COMMANDS)
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_of_a_command_are_documented(command: str) -> None:
    row, arguments = " ".join(ROWS[command]), COMMANDS[command]._actions
    # The page documents these once, because all or most subcommands have them.
    common = {"-h", "--help", "--as", "--json"} | list_django_options(PARSER)
    options = {option for action in arguments for option in action.option_strings} - common
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", row)) == options
    places = [
        str(action.metavar or action.dest).upper()
        for action in arguments
        if not (action.option_strings or action.choices)
    ]
    shown = " ".join(each.split("`")[1] for each in ROWS[command])
    assert set(places) <= set(re.findall(r"[A-Z_]+", shown))


def test_beat_tasks_are_documented() -> None:
    section = PAGES["commands"].read_text().partition("## Celery")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(phi_oidc\.\w+)`", section)) == set(schedule.beat_schedule())


def test_urls_are_documented() -> None:
    shown = re.findall(r"^\| `oidc/([^`]*)` \| `(\w+)` \|", PAGES["commands"].read_text(), re.MULTILINE)
    routes = {(re.sub(r"<\w+:\w+>", "<id>", str(each.pattern)), each.name) for each in urls.urlpatterns}
    # One row describes the three URLs that start with the name of a provider.
    assert set(shown) == {(route, name) for route, name in routes if name and not route.startswith("<")}


@pytest.mark.parametrize(
    ("page", "kinds"), [("events", Action), ("findings", FindingKind)], ids=lambda each: getattr(each, "__name__", each)
)
def test_actions_and_findings_are_documented(page: str, kinds: EnumMeta) -> None:
    values = {kind.value for kind in kinds}  # type: ignore[var-annotated]
    found = names(page) if page == "findings" else {name for name in names(page) if "." in name}
    assert found == values


def test_checks_are_listed_by_number() -> None:
    ids = [cell.strip("`") for cell in first_cells("checks")]
    assert ids == sorted(ids)
    assert len(ids) > 90


def test_documented_codes_exist() -> None:
    assert names("codes") <= CODES | {break_glass.REFUSAL_CODE}


def test_reasons_of_guards_and_claims_are_those_of_the_policy() -> None:
    constants = {value for name, value in vars(policy).items() if name.isupper() and isinstance(value, str)}
    reasons = {value for value in constants if value.islower()}
    assert names("access", "Rules of access") | names("claims", "Who may see what") == reasons


def test_reasons_of_refused_tokens_are_those_of_the_code() -> None:
    folders = (PACKAGE / "oidc", *(PACKAGE / "contrib" / name for name in ("apis", "common", "rest_framework", "scim")))
    source = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    raised = {*re.findall(r'(?:AccessToken|DPoPProof)Invalid\("(\w+)"\)', source), SCOPE_MISSING, TOKEN_MISPLACED}
    documented = names("api", "Why a token is refused")
    assert raised <= documented <= raised | CODES
