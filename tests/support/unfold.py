"""Tests in a project with django-unfold. The theme decides the base classes at import, so they run in a process."""

import os
import subprocess
import sys


def run_with_unfold(*paths: str) -> str:
    """Run these tests in a project with django-unfold, and return the summary. A failure fails the calling test."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-p", "no:randomly", *paths],
        env={**environ, "PHI_TEST_THEME": "unfold"},
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout.splitlines()[-1]
