"""The example portal as the project under attack, with its own settings, in separate processes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.support import databases
from tests.support.postgresql import direct_url

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "example_project"
VARIABLE_PREFIXES = ("DJANGO_", "OIDC_", "PHI_", "PORTAL_", "CACHE_", "CELERY_", "DATABASE_", "TEST_")


SCIM = {"OIDC_SCIM_JSON": '{"subject": "extension"}'}
"""The variable that turns SCIM on."""


@dataclass(frozen=True)
class Project:
    """The example project with its environment variables and its directory for files."""

    var: Path
    environ: dict[str, str]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the directory of the example."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=EXAMPLE,
            env={**self.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def attack(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `manage.py phi_oidc attack`."""
        return self.run("manage.py", "phi_oidc", "attack", *arguments, **variables)


def create_project(var: Path) -> Project:
    """Return a migrated example project on this run's kind of database; its provider does not exist."""
    shutil.copytree(_create_migrated_directory().name, var, dirs_exist_ok=True)
    project = _create_unmigrated_project(var)
    if databases.kind(os.environ) == "postgresql":
        project.environ["DATABASE_URL"] = direct_url(os.environ)
    return project


@cache
def _create_migrated_directory() -> "tempfile.TemporaryDirectory[str]":
    """Migrate only once, because it takes seconds."""
    directory = tempfile.TemporaryDirectory()
    process = _create_unmigrated_project(Path(directory.name)).run("manage.py", "migrate")
    assert process.returncode == 0, process.stderr
    return directory


def _create_unmigrated_project(var: Path) -> Project:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(VARIABLE_PREFIXES)},
        "DJANGO_DEBUG": "1",
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "PORTAL_VAR_DIR": str(var),
        "OIDC_ISSUER": "https://op.example.test",
        "OIDC_ALLOW_LOOPBACK_HTTP": "0",
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(ROOT)]),
    }
    return Project(var, environ)


def parse_json_lines(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects in the output, one per line."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
