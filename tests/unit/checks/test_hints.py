"""Each message names what to do, and the lines that it gives to paste resolve it."""

import ast
import re
from copy import deepcopy
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import CheckMessage, run_checks
from django.test import override_settings

from tests.support.check_sources import CHECK_MODULES
from tests.unit.checks.test_check_ids import CASES, Change

pytestmark = [
    pytest.mark.django_db(databases=["default", "phi_audit"]),
    pytest.mark.filterwarnings("ignore:Overriding setting (CACHES|DATABASES)"),
]
PASTED = re.compile(r"In your settings:\s+(?P<lines>.*)\Z", re.DOTALL)
WITHOUT_HINT = {"E001", "E002", "E025", "E026", "E151"}
"""Their message names the option and what is wrong with it; there is no line that would suit."""


def find_messages(number: str) -> list[CheckMessage]:
    return [message for message in run_checks() if message.id == f"django_phi_oidc.{number}"]


def paste(lines: str) -> dict[str, Any]:
    """Return the settings after the lines were executed at their end."""
    names: dict[str, Any] = {name: getattr(settings, name) for name in dir(settings) if name.isupper()}
    names = {name: deepcopy(value) if isinstance(value, dict | list) else value for name, value in names.items()}
    before = deepcopy(names)
    exec("\n".join(line.strip() for line in lines.splitlines()), names)
    return {name: value for name, value in names.items() if name.isupper() and value != before[name]}


PASTEABLE = [(number, wrong) for number, wrong, _ in CASES if number not in WITHOUT_HINT]


@pytest.mark.parametrize(("number", "wrong"), PASTEABLE, ids=[f"{case[0]}-{n}" for n, case in enumerate(PASTEABLE)])
def test_pasted_lines_resolve_the_message(number: str, wrong: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"):
        monkeypatch.setenv(name, "https://op.example.test")
    with override_settings(**wrong()):
        messages = find_messages(number)
        assert messages
        for message in messages:
            assert message.hint
            if (found := PASTED.search(message.hint)) and "…" not in found["lines"]:
                with override_settings(**paste(found["lines"])):
                    assert message not in find_messages(number)


def test_pasted_lines_are_recognized() -> None:
    """Otherwise the test above would find nothing to paste."""
    hints = []
    for number in ("E008", "E010", "E014", "E020", "W001", "W040"):
        wrong = next(change for name, change in PASTEABLE if name == number)
        with override_settings(**wrong()):
            hints += [message.hint for message in find_messages(number)]
    assert all(PASTED.search(str(hint)) for hint in hints)
    assert len(hints) == 6
    with override_settings(**paste("USE_TZ = False")):
        assert find_messages("E020")


def test_every_message_has_a_hint_or_no_line_would_suit() -> None:
    without = set()
    for path in CHECK_MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("error", "warning"):
                number = node.args[0]
                if len(node.args) + len(node.keywords) < 3:
                    names = {str(each.value) for each in ast.walk(number) if isinstance(each, ast.Constant)}
                    without |= {f"{node.func.id[0].upper()}{int(name):03}" for name in names if name.isdigit()}
    # The hint of E001 is about the apps that are not installed only.
    assert without | {"E001"} == WITHOUT_HINT
