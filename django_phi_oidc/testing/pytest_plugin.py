"""The attacks as tests of a project's own pytest run: `pytest --phi-oidc-attack`; without the flag nothing is added.

The attacks run once, in a process of their own with the project's settings, so that no test meets what they did: their
databases are not the tests'. Each is a test by its name; `-k` picks.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .attack.report import AttackOutcome

ATTACK_COMMAND = [sys.executable, "-m", "django", "phi_oidc", "attack", "--json"]
_OUTCOMES_KEY = pytest.StashKey["dict[str, AttackOutcome]"]()


class AttackTestFailure(Exception):
    """The portal fell for an attack, or its positive control failed."""


class AttackItem(pytest.Item):
    """One attack."""

    code = ""
    """Of its rule."""

    def runtest(self) -> None:
        """Say what came of it."""
        outcome = get_outcomes(self.session).get(self.name)
        if outcome is None:
            raise AttackTestFailure("nothing came of it")
        if outcome.result == "failed":
            raise AttackTestFailure(outcome.detail)
        if outcome.result != "held":
            pytest.skip(f"{outcome.result}: {outcome.detail}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Return the fault alone; no line of the kit explains more."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where it is told to be."""
        return self.path, None, self.name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--phi-oidc-attack", action="store_true", help="attack the project with django_phi_oidc's kit")


# First, so that `-k` sees them.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("phi_oidc_attack"):
        return
    # Where the flag is not given, this is loaded in projects without Django.
    from .attack.suite import get_default_provider, select_attacks  # noqa: PLC0415

    for attack in select_attacks(get_default_provider()):
        item: AttackItem = AttackItem.from_parent(session, name=attack.name)
        item.code = attack.code
        items.append(item)


def get_outcomes(session: pytest.Session) -> "dict[str, AttackOutcome]":
    """Return what came of each attack, by its name; the first call runs all that were picked."""
    from .attack.report import parse_json  # noqa: PLC0415 -- as above

    stash = session.config.stash
    if _OUTCOMES_KEY not in stash:
        from django.conf import settings  # noqa: PLC0415 -- as above

        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": settings.SETTINGS_MODULE}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        codes = {item.code for item in session.items if isinstance(item, AttackItem)}
        only = [word for code in sorted(codes) for word in ("--only", code)]
        ran = subprocess.run([*ATTACK_COMMAND, *only], env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        lines = [parse_json(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        if not lines:
            raise AttackTestFailure(ran.stderr)
        stash[_OUTCOMES_KEY] = {outcome.name: outcome for outcome in lines}
    return stash[_OUTCOMES_KEY]
