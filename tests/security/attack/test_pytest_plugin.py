"""`pytest --phi-oidc-attack` in a separate project: each attack is a test, and without the flag there are none."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.security.attack.example_project import Project, create_project
from tests.security.attack.test_attack_command import BACKENDS, FAULTY, with_settings
from tests.support.manual_blocks import commands

pytestmark = pytest.mark.sqlite
SELECTION = ("-k", "state_missing or user_inactive or break_glass_refused")
PROJECT_TEST = """
import os
from django.contrib.auth import get_user_model

def test_of_the_project(db):
    assert not get_user_model().objects.exists()
"""


def run_pytest(portal: Project, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in the project, which has one test."""
    directory = portal.var.parent / "tests"
    directory.mkdir(exist_ok=True)
    (directory / "test_own.py").write_text(PROJECT_TEST)
    (directory / "pytest.ini").write_text("[pytest]\ndjango_find_project = false\n")
    (directory / "conftest.py").write_text('pytest_plugins = ["django_phi_oidc.testing.runner"]\n')
    paths = [os.path.abspath(path) for path in portal.environ["PYTHONPATH"].split(os.pathsep)]
    environ = {"PYTHONPATH": os.pathsep.join(paths), **variables}
    return portal.run(
        "-m", "pytest", "-p", "no:randomly", "-p", "no:xdist", "-rs", "-q", str(directory), *arguments, **environ
    )


def test_each_attack_is_a_test_in_addition_to_those_of_the_project(tmp_path: Path) -> None:
    portal = create_project(tmp_path / "var")
    ((program, *arguments),) = commands("attack-kit", "plugin")
    assert program == "pytest"
    process = run_pytest(portal, *arguments, "-k", f"{SELECTION[1]} or test_of_the_project")
    assert "3 passed, 1 skipped" in process.stdout, process.stdout + process.stderr
    assert "not applicable: there is no break-glass account" in process.stdout
    assert process.returncode == 0


def test_failed_attack_is_a_test_failure_with_the_fault(tmp_path: Path) -> None:
    portal = create_project(tmp_path / "var")
    variables = with_settings(portal, faulty=FAULTY, faulty_backends=BACKENDS)
    process = run_pytest(
        portal, "-p", "django_phi_oidc.testing.pytest_plugin", "--phi-oidc-attack", *SELECTION, **variables
    )
    assert "1 failed, 1 passed, 1 skipped" in process.stdout, process.stdout + process.stderr
    assert "the account's session is still valid" in process.stdout
    assert process.returncode == 1


def test_without_the_flag_there_are_no_attacks(tmp_path: Path) -> None:
    process = run_pytest(create_project(tmp_path / "var"))
    assert "1 passed" in process.stdout, process.stdout + process.stderr
    assert process.returncode == 0


def test_plugin_is_not_loaded_unless_the_project_asks_for_it(tmp_path: Path) -> None:
    process = run_pytest(create_project(tmp_path / "var"), "--phi-oidc-attack")
    assert "unrecognized arguments: --phi-oidc-attack" in process.stdout + process.stderr
    assert process.returncode == pytest.ExitCode.USAGE_ERROR
