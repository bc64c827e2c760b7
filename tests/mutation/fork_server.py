"""Run tests in fresh processes that need not import Django, pytest and other packages again.

Started in a copy of this repository, as `python -m tests.mutation.fork_server`. For each line of JSON on the standard
input, a forked child imports the code of the copy and runs one test; a line of JSON with its outcome is the answer.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

PRELOADED = (
    *("celery", "celery.app.task", "cryptography.hazmat.primitives.asymmetric.rsa", "cryptography.x509", "jwt"),
    *("django.contrib.admin.options", "django.contrib.sessions.backends.db", "django.core.management"),
    *("django.db.backends.postgresql.base", "django.db.backends.sqlite3.base", "django.db.migrations.executor"),
    *("django.template.engine", "django.test", "django.test.runner", "django.views.generic", "kombu", "urllib3"),
    *("hypothesis.internal.conjecture.engine", "hypothesis.strategies", "jsonschema", "pytest_django.plugin"),
)
"""Packages that the tests import, without those that need Django's settings."""
POLL_SECONDS = 0.02


class Outcome:
    """A plugin of pytest that collects the failures, and requires that the changed module can be imported."""

    def __init__(self, module: str) -> None:
        self._module = module
        self.failed_phases: list[str] = []
        self.passed = 0
        self.deselected = 0
        self.message = ""

    def pytest_collection_finish(self) -> None:
        module = import_module(self._module)
        assert Path(module.__file__ or "").is_relative_to(Path.cwd()), "not the code of the copy"

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self.deselected += len(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed_phases.append(report.when)
            crash = getattr(report.longrepr, "reprcrash", None)
            self.message = (self.message or str(getattr(crash, "message", ""))).partition("\n")[0]
        self.passed += report.passed and report.when == "call"


def run_test(test: str, *, module: str, database: str, output: Path) -> dict[str, Any]:
    """Run the test in this process, and return its outcome."""
    os.environ["PHI_TEST_DB"] = database
    with output.open("w") as file, Path(os.devnull).open() as nothing:
        for descriptor, target in enumerate((nothing, file, file)):
            os.dup2(target.fileno(), descriptor)
    outcome = Outcome(module)
    options = ("-q", "-x", "-pno:cacheprovider", "-pno:randomly", "-pno:xdist", "--hypothesis-seed=0")
    code = pytest.main([*options, f"tests/{test}"], plugins=[outcome])
    return {
        "exit_code": int(code),
        "failed_phases": outcome.failed_phases,
        "passed": outcome.passed,
        "deselected": outcome.deselected,
        "message": outcome.message,
    }


def run_in_child(request: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    """Return the outcome of the test in a forked child; empty if it did not end in time."""
    output, result = Path("evidence-output.txt"), Path("evidence-result.json")
    result.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            result.write_text(json.dumps(run_test(**request, output=output)))
        finally:
            os._exit(0)
    ends_at = time.monotonic() + seconds
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() >= ends_at:
            break
        time.sleep(POLL_SECONDS)
    # Also the processes that the test started and did not end.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    return json.loads(result.read_text()) if result.is_file() else {}


def main() -> None:
    for name in PRELOADED:
        import_module(name)
    assert "django_phi_oidc" not in sys.modules
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(run_in_child(request, seconds=request.pop("seconds"))), flush=True)


if __name__ == "__main__":
    main()
