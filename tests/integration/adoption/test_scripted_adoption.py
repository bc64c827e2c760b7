"""This package is installed from its wheel into six kinds of projects, and three persons sign in."""

import os
import re
from pathlib import Path

import pytest

from tests.integration.adoption.__main__ import format_table
from tests.integration.adoption.adoption_runs import OWN, Adoption, measure_adoptions
from tests.support.manual_blocks import PAGES

MAX_COMMANDS = 4
MAX_SETTINGS = 17
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def test_adoptions_take_what_the_manual_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also from mozilla-django-oidc and django-allauth, each with twenty users, who arrive at their accounts."""
    adoptions = measure_adoptions(tmp_path, print)
    with capsys.disabled():
        print(f"\n{format_table(adoptions)}")
    not_run = {item.not_run for item in adoptions if item.not_run}
    assert not not_run or not IN_CI, not_run
    expected = read_page()
    assert [(item.project, item.library) for item in adoptions] == list(expected)
    for item in adoptions:
        if not item.not_run:
            assert count(item) == expected[item.project, item.library], item
            assert item.library != OWN or len(item.effort.commands) <= MAX_COMMANDS, item
            assert item.library != OWN or len(item.effort.settings) <= MAX_SETTINGS, item


def read_page() -> dict[tuple[str, str], list[int]]:
    """Return the counts of the page, by project and library: commands, settings, other lines and variables."""
    rows = re.findall(r"^\| (\w[^|]*) \| (\S+) \|((?: \d+ \|){5})$", PAGES["adoption"].read_text(), re.MULTILINE)
    return {
        (project, library): [int(number) for number in re.findall(r"\d+", numbers)][:4]
        for project, library, numbers in rows
    }


def count(adoption: Adoption) -> list[int]:
    effort = adoption.effort
    return [len(lines) for lines in (effort.commands, effort.settings, effort.code, effort.variables)]
