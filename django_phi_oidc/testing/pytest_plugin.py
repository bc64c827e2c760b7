"""Adds the attacks to a project's pytest run: `pytest --phi-oidc-attack`. Without the flag, nothing
is added.

The attacks run once, in a separate process with the project's settings and separate databases, so
that they do not affect the tests. Each attack is a test with its name; select with `-k`.
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
    """The portal did not refuse an attack, or the positive control failed."""


class AttackItem(pytest.Item):
    """One attack."""

    code = ""
    """The code of the attacked rule."""

    def runtest(self) -> None:
        """Fail or skip according to the outcome."""
        outcome = get_outcomes(self.session).get(self.name)
        if outcome is None:
            raise AttackTestFailure("there is no outcome")
        if outcome.result == "failed":
            raise AttackTestFailure(outcome.detail)
        if outcome.result != "held":
            pytest.skip(f"{outcome.result}: {outcome.detail}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Return only the fault: a traceback of the kit does not help."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the location and name for the report."""
        return self.path, None, self.name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--phi-oidc-attack",
        action="store_true",
        help="attack the project with django_phi_oidc's kit",
    )


# Run first, so that `-k` applies to the attacks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    if not config.getoption("phi_oidc_attack"):
        return
    # Import late: without the flag, this plugin is also loaded in projects without Django.
    from .attack.suite import get_default_provider, select_attacks  # noqa: PLC0415

    for attack in select_attacks(get_default_provider()):
        item: AttackItem = AttackItem.from_parent(session, name=attack.name)
        item.code = attack.code
        items.append(item)


def get_outcomes(session: pytest.Session) -> "dict[str, AttackOutcome]":
    """Return the outcomes by name. The first call runs all selected attacks."""
    from .attack.report import parse_json  # noqa: PLC0415 -- as above

    stash = session.config.stash
    if _OUTCOMES_KEY not in stash:
        from django.conf import settings  # noqa: PLC0415 -- as above

        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": settings.SETTINGS_MODULE}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        codes = set()
        for item in session.items:
            if isinstance(item, AttackItem):
                codes.add(item.code)
        command = list(ATTACK_COMMAND)
        for code in sorted(codes):
            command += ["--only", code]
        process = subprocess.run(  # noqa: S603
            command, env=environment, capture_output=True, text=True, check=False
        )
        outcomes = []
        for line in process.stdout.splitlines():
            if line.startswith("{"):
                outcomes.append(parse_json(line))
        if not outcomes:
            raise AttackTestFailure(process.stderr)
        stash[_OUTCOMES_KEY] = {outcome.name: outcome for outcome in outcomes}
    return stash[_OUTCOMES_KEY]
