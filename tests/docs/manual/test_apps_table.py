"""The page about apps names each app, what it adds and what it needs."""

import re
from typing import Any

import pytest
from django.core.management import call_command

from tests.docs.manual.apps_table import list_app_names, list_needs, regenerate, short_name
from tests.support.manual_blocks import PAGES, block, commands

PAGE = PAGES["choose-apps"].read_text()
PURPOSE_ROW = re.compile(r"^\| `(?P<name>[a-z_.]+)` \| (?P<purpose>[^|]+) \|(?P<needs>[^|]*)\|$", re.MULTILINE)


def test_list_of_what_apps_add_matches_the_configurations_and_a_stale_one_is_found() -> None:
    assert regenerate(PAGE) == PAGE, "make reference"
    stale = PAGE.replace("`SIEM`", "`SINKS`")
    assert stale != PAGE
    assert regenerate(stale) == PAGE


def test_each_app_has_a_row_with_its_purpose_and_what_it_needs() -> None:
    rows = {row["name"]: set(re.findall(r"`([^`]+)`", row["needs"])) for row in PURPOSE_ROW.finditer(PAGE)}
    needs = {name: set(map(short_name, names)) for name, names in list_needs().items()}
    assert rows == {short_name(name): needs[name] for name in list_app_names()}


@pytest.mark.django_db
def test_commands_and_lines_of_the_page_work(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"INSTALLED_APPS": []}
    exec(block("choose-apps", "installed"), namespace)
    assert set(namespace["INSTALLED_APPS"]) <= set(list_app_names())
    (command,) = commands("choose-apps", "apps")
    call_command(*command[2:])
    assert "django_phi_oidc.contrib.siem: installed" in capsys.readouterr().out
