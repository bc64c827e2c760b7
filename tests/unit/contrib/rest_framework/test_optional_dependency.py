"""The app works without Django REST framework, except for contrib.rest_framework."""

import subprocess
import sys

PROGRAM = """
import sys
if {blocked}:
    sys.modules["rest_framework"] = None
import importlib, pkgutil
import django
django.setup()
from django.core.checks import run_checks
run_checks()
import django_phi_oidc
names = [module.name for module in pkgutil.walk_packages(django_phi_oidc.__path__, "django_phi_oidc.")]
assert "django_phi_oidc.contrib.rest_framework" in names and "django_phi_oidc.login.views" in names
failed = []
for name in names:
    if name.endswith("__main__") or ".migrations" in name:
        continue
    try:
        importlib.import_module(name)
    except ImportError:
        failed.append(name.removeprefix("django_phi_oidc."))
assert {blocked} or "rest_framework" in sys.modules
print(*failed)
"""


def failed_imports(*, blocked: bool) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(blocked=blocked)],
        env={"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


def test_other_modules_work_without_rest_framework() -> None:
    api_modules = [
        *(f"contrib.account_api.{name}" for name in ("account", "account_urls")),
        *(f"contrib.rest_framework.{name}" for name in ("authentication", "exceptions", "permissions")),
    ]
    assert (failed_imports(blocked=True), failed_imports(blocked=False)) == (api_modules, [])
