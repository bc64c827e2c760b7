"""A missing part is reported, and fails in CI; a test for the other database is left to the other run."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import LONG

ROOT = Path(__file__).resolve().parents[2]
NOBODY_THERE = "redis://127.0.0.1:1/0"
TESTS = """
import pytest

@pytest.mark.redis
def test_that_needs_redis():
    assert True

@pytest.mark.postgresql
def test_about_postgresql():
    assert True

def test_that_needs_nothing():
    assert True

@pytest.mark.each_database
def test_with_databases_of_its_own():
    assert True

@pytest.mark.browser
@pytest.mark.django_db
def test_in_a_browser():
    assert True

@pytest.mark.django_db
def test_that_asks_for_the_databases():
    assert True
"""


def run_pytest(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run TESTS with the hooks of tests/conftest.py, in a process of its own, on SQLite where nothing else is said."""
    file = directory / "test_parts_needed.py"
    file.write_text(TESTS)
    given = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_ADDOPTS"}}
    options = ["-p", "tests.conftest", "--strict-markers", "--import-mode=importlib", f"--rootdir={directory}"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-c", os.devnull, *arguments, str(file)],
        cwd=ROOT,
        env={**given, "DJANGO_SETTINGS_MODULE": "tests.settings", "PHI_TEST_DB": "sqlite", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_run_without_a_part_lists_what_was_not_run_and_why(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, REDIS_URL=NOBODY_THERE)
    assert finished.returncode == pytest.ExitCode.OK, finished.stdout + finished.stderr
    # Newer releases of kombu mask the password that is not there.
    assert "1 redis: redis://127.0.0.1:1/0 does not answer" in finished.stdout.replace(":**@", "")
    assert "2 slow, or about another database than sqlite" in finished.stdout
    assert "3 passed, 1 skipped, 2 deselected" in finished.stdout


def test_run_without_a_part_in_ci_fails(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, REDIS_URL=NOBODY_THERE, CI="true")
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED, finished.stdout + finished.stderr
    assert "redis is missing, and CI runs everything" in finished.stdout


@pytest.mark.redis
def test_run_with_the_part_in_ci_passes(tmp_path: Path, redis_url: str) -> None:
    finished = run_pytest(tmp_path, REDIS_URL=redis_url, CI="true")
    assert finished.returncode == pytest.ExitCode.OK, finished.stdout + finished.stderr
    assert "4 passed, 2 deselected" in finished.stdout


def test_run_on_postgresql_leaves_out_what_asks_for_no_database(tmp_path: Path) -> None:
    nowhere = {"PHI_TEST_DB": "postgresql", "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    finished = run_pytest(tmp_path, "--collect-only", "-q", **nowhere)
    assert {line.rpartition("::")[2] for line in finished.stdout.splitlines() if "::" in line} == {
        "test_about_postgresql",
        "test_with_databases_of_its_own",
        "test_in_a_browser",
        "test_that_asks_for_the_databases",
    }


def test_no_module_defines_a_test_twice() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        names = re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
        assert len(names) == len(set(names)), path


@pytest.mark.parametrize("start", LONG)
def test_each_start_of_the_long_tests_fits_a_test(start: str) -> None:
    place, _, name = start.partition("::")
    found = ROOT / place
    assert found.exists()
    assert not name or f"\ndef {name}" in found.read_text()


def test_run_without_long_tests_has_all_others() -> None:
    left_out = collect() - collect("--without-long")
    assert left_out == {test for test in collect() if test.startswith(LONG)}
    assert left_out
    assert collect("--without-long")


def test_parts_of_the_slow_tests_are_disjoint_and_have_all_of_them() -> None:
    parts = [collect("--slow-part", f"{part}/2") for part in range(2)]
    assert all(parts)
    assert sum(len(part) for part in parts) == len(frozenset().union(*parts))
    assert frozenset().union(*parts) == collect()


def test_part_of_the_slow_tests_leaves_out_no_quick_test() -> None:
    arguments = ("tests/unit/audit/merkle/test_compact.py", "--scope", "all")
    assert collect("--slow-part", "0/3", tests=arguments) == collect(tests=arguments) != set()


@pytest.mark.parametrize("part", ["3/3", "a/b"])
def test_part_that_does_not_exist_is_refused(part: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        collect(f"--slow-part={part}")
    assert refused.value.returncode == pytest.ExitCode.USAGE_ERROR


@cache
def collect(*arguments: str, tests: tuple[str, ...] = ("tests/security/attack",)) -> frozenset[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *tests, *arguments]
    given = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    listed = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=True, timeout=120)
    return frozenset(line for line in listed.stdout.splitlines() if "::" in line)
