"""`pytest --phi-oidc-attack` in a project of its own: each attack is a test, and without the flag none is there."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.security.attack.example_project import Project, project
from tests.security.attack.test_attack_command import BACKENDS, FAULTY, with_settings
from tests.support.manual_blocks import commands

pytestmark = pytest.mark.sqlite
PICKED = ("-k", "state_missing or user_inactive or break_glass_refused")
ITS_OWN = """
import os
from django.contrib.auth import get_user_model

def test_of_the_project(db):
    assert not get_user_model().objects.exists()
"""


def run_pytest(portal: Project, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the project's own pytest, which has one test."""
    folder = portal.var.parent / "tests"
    folder.mkdir(exist_ok=True)
    (folder / "test_own.py").write_text(ITS_OWN)
    (folder / "pytest.ini").write_text("[pytest]\ndjango_find_project = false\n")
    (folder / "conftest.py").write_text('pytest_plugins = ["django_phi_oidc.testing.runner"]\n')
    paths = [os.path.abspath(path) for path in portal.environ["PYTHONPATH"].split(os.pathsep)]
    environ = {"PYTHONPATH": os.pathsep.join(paths), **more}
    return portal.run(
        "-m", "pytest", "-p", "no:randomly", "-p", "no:xdist", "-rs", "-q", str(folder), *words, **environ
    )


def test_each_attack_is_a_test_by_its_name_beside_the_projects_own(tmp_path: Path) -> None:
    portal = project(tmp_path / "var")
    ((program, *words),) = commands("attack-your-portal", "plugin")
    assert program == "pytest"
    ran = run_pytest(portal, *words, "-k", f"{PICKED[1]} or test_of_the_project")
    assert "3 passed, 1 skipped" in ran.stdout, ran.stdout + ran.stderr
    assert "not applicable: there is no local account" in ran.stdout
    assert ran.returncode == 0


def test_attack_that_was_not_held_is_a_failure_that_says_what_was_seen(tmp_path: Path) -> None:
    portal = project(tmp_path / "var")
    more = with_settings(portal, faulty=FAULTY, faulty_backends=BACKENDS)
    ran = run_pytest(portal, "-p", "django_phi_oidc.testing.pytest_plugin", "--phi-oidc-attack", *PICKED, **more)
    assert "1 failed, 1 passed, 1 skipped" in ran.stdout, ran.stdout + ran.stderr
    assert "a session of the account lives" in ran.stdout
    assert ran.returncode == 1


def test_without_the_flag_nothing_is_attacked(tmp_path: Path) -> None:
    ran = run_pytest(project(tmp_path / "var"))
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert ran.returncode == 0
