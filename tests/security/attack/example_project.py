"""The example portal as a project that is attacked: with its own settings, in processes of its own."""

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

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "example_project"
OURS = ("DJANGO_", "OIDC_", "PHI_", "PORTAL_", "CACHE_", "CELERY_", "DATABASE_", "TEST_")


@dataclass(frozen=True)
class Project:
    """The example, its variables and its folder of files."""

    var: Path
    environ: dict[str, str]

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments in the example's folder."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=EXAMPLE,
            env={**self.environ, **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def attack(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `manage.py phi_oidc attack`."""
        return self.run("manage.py", "phi_oidc", "attack", *words, **more)


def project(var: Path) -> Project:
    """Return the example on this run's kind of database, with keys of its tests' own and a provider that is nowhere."""
    shutil.copytree(_migrated().name, var, dirs_exist_ok=True)
    made = _at(var)
    if databases.kind(os.environ) == "postgresql":
        made.environ["DATABASE_URL"] = databases.given_url(os.environ)
    return made


@cache
def _migrated() -> "tempfile.TemporaryDirectory[str]":
    """Make the example's folder once for all of them: migrations take their seconds."""
    folder = tempfile.TemporaryDirectory()
    ran = _at(Path(folder.name)).run("manage.py", "migrate")
    assert ran.returncode == 0, ran.stderr
    return folder


def _at(var: Path) -> Project:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(OURS)},
        "DJANGO_DEBUG": "1",
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "PORTAL_VAR_DIR": str(var),
        "OIDC_ISSUER": "https://op.example.test",
        "OIDC_ALLOW_LOOPBACK_HTTP": "0",
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(ROOT)]),
    }
    return Project(var, environ)


def objects(text: str) -> list[dict[str, Any]]:
    """Return the objects that were printed, one a line."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
