"""The app without Django REST framework, and with it."""

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
names = [found.name for found in pkgutil.walk_packages(django_phi_oidc.__path__, "django_phi_oidc.")]
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


def failed(*, blocked: bool) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(blocked=blocked)],
        env={"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_all_but_the_guards_of_apis_works_without_it() -> None:
    of_apis = ["drf.authentication", "drf.permissions", "drf.refusing"]
    assert (failed(blocked=True), failed(blocked=False)) == (of_apis, [])
