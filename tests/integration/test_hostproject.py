"""With the documented line, a host project's tests are isolated and flushed, and its databases stay unchanged."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from django_phi_oidc.testing import runner
from tests.support import databases
from tests.support.manual_blocks import block
from tests.support.temporary_databases import scratch_databases

HOST = Path(__file__).parent / "hostproject"
STATE = """
import django
django.setup()
from django.db import connections
from django_phi_oidc.audit.models import AuditEvent
for alias in ("default", "phi_audit"):
    with connections[alias].cursor() as cursor:
        if connections[alias].vendor == "sqlite":
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'phi_oidc_audit%'")
        else:
            cursor.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'phi_oidc_audit%'")
        print(len(cursor.fetchall()), AuditEvent.objects.count())
"""
MIGRATED_STATE = "HOST_MIGRATED_STATE"
"""The variable with the output of STATE before the tests."""


# With SQLite, the aliases are always two files. With PostgreSQL, they may be one database.
ARRANGEMENTS = ["shared", pytest.param("separate", marks=pytest.mark.postgresql)]


def each_arrangement(test: Any) -> Any:
    return pytest.mark.each_database(pytest.mark.parametrize("host", ARRANGEMENTS, indirect=True)(test))


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return the environment of a host project with its own migrated databases, which tests must not change."""
    is_shared = getattr(request, "param", "shared") == "shared"
    with scratch_databases(tmp_path_factory.mktemp("host"), shared=is_shared) as environment:
        environment["PYTHONPATH"] = os.pathsep.join((str(HOST), str(HOST.parents[2])))
        environment["DJANGO_SETTINGS_MODULE"] = "settings"
        for alias in databases.ALIASES:
            run(environment, "manage.py", "migrate", "--skip-checks", f"--database={alias}")
        environment[MIGRATED_STATE] = run(environment, "-c", STATE)
        assert environment[MIGRATED_STATE].endswith("13 0\n"), "the audit database has triggers and no event"
        yield environment


@pytest.fixture
def environment(host: dict[str, str]) -> dict[str, str]:
    return dict(host)


def run(environment: dict[str, str], *arguments: str, fails: bool = False) -> str:
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=HOST,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert bool(process.returncode) is fails, process.stdout + process.stderr
    return process.stdout + process.stderr


def assert_databases_unchanged(environment: dict[str, str]) -> None:
    assert run(environment, "-c", STATE) == environment[MIGRATED_STATE]


def test_host_project_uses_the_lines_of_the_manual() -> None:
    assert (HOST / "conftest.py").read_text() == block("testing", "plugins")
    name, _, value = block("testing", "runner").strip().partition(" = ")
    assert f'{name} = os.environ.get("HOST_TEST_RUNNER", {value})\n' in (HOST / "settings.py").read_text()


@each_arrangement
def test_manage_test_of_a_host_project_passes(environment: dict[str, str]) -> None:
    output = run(environment, "manage.py", "test", "--pattern=hosttests_django.py", "hospital")
    assert re.search(r"Ran 13 tests", output)
    assert_databases_unchanged(environment)


def test_manage_test_in_parallel_with_keepdb_passes_twice(environment: dict[str, str]) -> None:
    for _ in range(2):
        arguments = ("--parallel=2", "--keepdb", "--pattern=hosttests_django.py", "hospital")
        assert "Ran 13 tests" in run(environment, "manage.py", "test", *arguments)
    run(environment, "manage.py", "test", "--parallel=2", "--noinput", "--pattern=hosttests_django.py", "hospital")
    assert_databases_unchanged(environment)


def test_manage_test_without_the_documented_line_fails(environment: dict[str, str]) -> None:
    environment["HOST_TEST_RUNNER"] = "django.test.runner.DiscoverRunner"
    assert "FAILED (" in run(environment, "manage.py", "test", "--pattern=hosttests_django.py", "hospital", fails=True)
    assert_databases_unchanged(environment)


@pytest.mark.each_database
def test_own_runner_with_the_documented_mixin_passes(environment: dict[str, str], tmp_path: Path) -> None:
    own = "from django.test.runner import DiscoverRunner as OwnTestRunner\n"
    (tmp_path / "own_runner.py").write_text(own + block("testing", "mixin"))
    environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    environment["HOST_TEST_RUNNER"] = "own_runner.PortalTestRunner"
    output = run(environment, "manage.py", "test", "--pattern=hosttests_django.py", "hospital")
    assert "Ran 13 tests" in output
    assert_databases_unchanged(environment)


@pytest.mark.each_database
def test_documented_sign_in_at_the_mock_provider_passes(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sign_in_tests.py").write_text(block("testing", "sign-in"))
    (tmp_path / "conftest.py").write_text(block("testing", "plugins"))
    output = run(environment, "manage.py", "test", "--pattern=sign_in_tests.py", str(tmp_path))
    assert re.search(r"Ran 1 test\b", output)
    (tmp_path / "fixture_tests.py").write_text(block("testing", "fixture"))
    for file in ("sign_in_tests.py", "fixture_tests.py"):
        assert "1 passed" in run(environment, "-m", "pytest", "--rootdir", str(tmp_path), str(tmp_path / file))
    assert_databases_unchanged(environment)


def test_serialized_rollback_in_a_host_project_passes(environment: dict[str, str]) -> None:
    assert "Ran 2 tests" in run(environment, "manage.py", "test", "--pattern=serialized_django.py", "hospital")
    assert "2 passed" in run(environment, "-m", "pytest", "hospital/serialized_pytest.py")
    assert_databases_unchanged(environment)


@each_arrangement
def test_pytest_of_a_host_project_passes(environment: dict[str, str]) -> None:
    assert re.search(r"\b26 passed", run(environment, "-m", "pytest"))
    assert_databases_unchanged(environment)


def test_pytest_with_xdist_and_reused_databases_passes(environment: dict[str, str]) -> None:
    for options in (("--reuse-db", "-n2"), ("--reuse-db", "-n2"), ("--create-db", "-n2")):
        assert re.search(r"\b26 passed", run(environment, "-m", "pytest", *options))
    assert_databases_unchanged(environment)


@pytest.mark.each_database
def test_pytest_drops_its_databases_after_tests_with_open_connections(environment: dict[str, str]) -> None:
    output = run(environment, "-m", "pytest", "hospital/hosttests_pytest.py", "-k", "by_mark_with_databases")
    assert "2 passed" in output
    assert "Error when trying to teardown" not in output


def test_pytest_without_the_documented_line_fails(environment: dict[str, str]) -> None:
    output = run(environment, "-m", "pytest", "--noconftest", "hospital/hosttests_pytest.py", fails=True)
    assert re.search(r"\b\d+ failed", output)
    assert_databases_unchanged(environment)


def test_triggers_are_not_dropped_in_a_database_that_is_not_a_test_database() -> None:
    connection = connections["default"]
    name = connection.settings_dict["NAME"]
    sender = apps.get_app_config("django_phi_oidc")
    connection.settings_dict["NAME"] = "another"
    try:
        with pytest.raises(ImproperlyConfigured, match="not a test database"):
            runner._drop_append_only_triggers(sender=sender, using="default", plan=[])
    finally:
        connection.settings_dict["NAME"] = name
