"""A web process imports neither Celery and other packages of workers nor features that it does not use."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.benchmarks.startup.process_costs import ADMIN, start_process
from tests.support.code_lines import count_code_lines

NOT_OF_A_WEB_PROCESS = (
    *("celery", "kombu", "requests", "rest_framework", "opentelemetry", "prometheus_client", "mozilla_django_oidc"),
    # Of a portal that declares SCIM.
    *("scim2_models", "pydantic"),
    *(
        f"django_phi_oidc.{name}"
        for name in (
            *(f"contrib.{app}" for app in ("adoption", "doctor", "evidence", "key_rotation", "rest_framework")),
            *("checks.core", "management", "tasks", "testing", "leak_guard.task_receivers"),
        )
    ),
)
NOT_WITHOUT_ADMIN = (
    "django.contrib.admin",
    *(
        f"django_phi_oidc.{name}"
        for name in (
            *("admin", "audit.log.reader", "audit.log.verifier", "audit.merkle"),
            *("contrib.siem.delivery", "contrib.monitoring.rules"),
        )
    ),
)
MOST_MODULES = 1.4
"""As a multiple of the bare project. Each additional module costs about half a millisecond of each start."""
MOST_CODE_LINES = 22_000
MOST_CODE_LINES_OF_AUDIT = 2_500
"""What records events, without the log, the formats and the admin."""


@pytest.fixture(scope="module")
def modules_of_bare() -> set[str]:
    return set(start_process("bare")["modules"])


def list_imported(modules: set[str], names: tuple[str, ...]) -> set[str]:
    """Return the packages of names that are imported, or a module of which is."""
    return {name for name in names if any(f"{module}.".startswith(f"{name}.") for module in modules)}


def test_web_process_imports_no_more_than_it_needs(modules_of_bare: set[str]) -> None:
    modules = set(start_process("phi_oidc")["modules"])
    assert list_imported(modules, (*NOT_OF_A_WEB_PROCESS, *NOT_WITHOUT_ADMIN)) == set()
    assert "django_phi_oidc.login.views" in modules
    assert len(modules) <= MOST_MODULES * len(modules_of_bare)


def count_code_lines_of(modules: set[str], package: str) -> int:
    total = 0
    for module in modules:
        if f"{module}.".startswith(f"{package}."):
            spec = find_spec(module)
            assert spec is not None, module
            assert spec.origin is not None, module
            total += count_code_lines(Path(spec.origin).read_text(encoding="utf-8"))
    return total


def test_web_process_loads_only_what_a_reviewer_can_read() -> None:
    modules = set(start_process("phi_oidc")["modules"])
    assert 10_000 < count_code_lines_of(modules, "django_phi_oidc") <= MOST_CODE_LINES
    assert 1_000 < count_code_lines_of(modules, "django_phi_oidc.audit") <= MOST_CODE_LINES_OF_AUDIT


def test_code_lines_are_neither_blank_nor_comments_nor_docstrings() -> None:
    source = '"""A module.\n\nIts text.\n"""\n\n# A comment.\nx = (\n    1,  # one\n)\n'
    assert count_code_lines(source) == 3


def test_web_process_with_admin_imports_no_more_than_it_needs() -> None:
    modules = set(start_process(f"phi_oidc{ADMIN}")["modules"])
    assert list_imported(modules, NOT_OF_A_WEB_PROCESS) == set()
    assert "django_phi_oidc.contrib.officer_admin.dashboard" in modules


def run_python(code: str, **environment: str) -> str:
    """Return what the code prints in a process with the settings of the started portal."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.startup.settings",
        "BENCH_CONTENDER": "phi_oidc",
        "BENCH_DATABASE_URL": "postgresql://127.0.0.1/portal",
        **environment,
    }
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize(("imports", "count"), [("", 0), ("celery", 1)])
def test_secrets_of_tasks_are_tracked_where_celery_was_imported_before_django(imports: str, count: int) -> None:
    """Also in a worker that does not run the tasks of this app."""
    code = f"""
{imports and "import " + imports}
import django
django.setup()
from celery.signals import task_postrun, task_prerun
print(len(task_prerun.receivers), len(task_postrun.receivers))
"""
    assert run_python(code).split() == [str(count)] * 2


def test_checks_are_imported_when_they_run() -> None:
    code = """
import sys, django
django.setup()
from django.core.checks import run_checks
print("django_phi_oidc.checks.core" in sys.modules)
for with_deploy in (False, True):
    ids = {message.id for message in run_checks(include_deployment_checks=with_deploy)}
    print("django_phi_oidc.W009" in ids, "django_phi_oidc.W065" in ids)
"""
    assert run_python(code).split() == ["False", "True", "False", "True", "True"]


@pytest.mark.parametrize("more_calls", [0, 1])
def test_check_runs_once_however_often_the_app_becomes_ready(more_calls: int) -> None:
    """Tests of host projects that change INSTALLED_APPS call `ready()` again."""
    code = f"""
import django
django.setup()
from django.apps import apps
from django.core.checks import run_checks
for _ in range({more_calls}):
    apps.get_app_config("django_phi_oidc").ready()
print([message.id for message in run_checks()].count("django_phi_oidc.W009"))
"""
    assert run_python(code) == "1\n"
