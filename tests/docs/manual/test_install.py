"""The page about an existing project is done as it stands, by a shell, in a project with users and sessions.

The project has ATOMIC_REQUESTS, tests that flush its tables, and a database with options: SQLite, or PostgreSQL.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from django_phi_oidc.project_settings import add_audit_database
from tests.docs.manual.test_tutorial import SHELL, VISIT
from tests.docs.test_docs import free_port
from tests.support.manual_blocks import PAGES, ROOT, block
from tests.support.temporary_databases import scratch_databases

DATABASES = {
    "sqlite": 'DATABASES["default"] |= {"ATOMIC_REQUESTS": True, "OPTIONS": {"timeout": 1}}\n',
    "postgresql": """\
import os
import dj_database_url
given = dj_database_url.parse(os.environ["TEST_DATABASE_URL"]) | {"NAME": os.environ["TEST_DATABASE_NAME_DEFAULT"]}
options = given.get("OPTIONS", {}) | {"application_name": "portal"}
DATABASES = {"default": given | {"ATOMIC_REQUESTS": True, "CONN_MAX_AGE": 60, "OPTIONS": options}}
""",
}
VIEWS = """\
from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import HttpResponse


@login_required
def home(request):
    return HttpResponse(f"{request.user.get_username()} {connection.in_atomic_block}")
"""
URLS = """\
from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path

from portal import views

urlpatterns = [
    path("", views.home),
    path("admin/", admin.site.urls),
    path("accounts/login/", LoginView.as_view(template_name="admin/login.html")),
]
"""
TESTS = """\
from django.contrib.auth import get_user_model
from django.test import LiveServerTestCase, TestCase, TransactionTestCase


class Visits:
    def test_first_visit(self):
        self.visit()

    def test_second_visit(self):
        self.visit()

    def visit(self):
        assert get_user_model().objects.count() == 0
        user = get_user_model().objects.create_user("amina", is_staff=True, is_superuser=True)
        self.client.force_login(user)
        assert self.client.get("/").content == b"amina True"
        assert self.client.get("/admin/").status_code == 200


class InATransaction(Visits, TestCase):
    pass


class WithAFlush(Visits, TransactionTestCase):
    pass


class WithAFlushAndSequences(Visits, TransactionTestCase):
    reset_sequences = True


class WithAServer(Visits, LiveServerTestCase):
    pass
"""
ACCOUNTS = """\
from django.contrib.auth import get_user_model
from django.test import Client

user = get_user_model().objects.create_superuser("root", "root@example.org", "correct horse")
client = Client(headers={"host": "127.0.0.1"})
assert client.login(username="root", password="correct horse")
open("session", "w").write(client.session.session_key)
"""
SIGNED_OUT = """\
from django.test import Client

client = Client(headers={"host": "127.0.0.1"})
client.cookies["sessionid"] = open("session").read()
assert client.get("/")["Location"] == "/oidc/authenticate/?next=/", "the session has ended"
assert client.get("/admin/login/")["Location"] == "/oidc/authenticate/?next=%2Fadmin%2F"
"""
PASSWORD = """\
from django.test import Client

print("password:", Client().login(username="root", password="correct horse"))
"""


def commands(name: str) -> list[str]:
    return [line.removeprefix("$ ") for line in block("install", name).splitlines()]


def append(file: str, text: str) -> str:
    return f"cat >> {file} <<'END'\n{text}END"


def script(kind: str, port: int, op_port: int) -> str:
    """Return the existing project, then what a reader of the page does in it, block by block."""
    (environment,), (init,), (_, provider) = commands("environment"), commands("init"), commands("provider")
    settings = "portal/settings.py"
    (append_settings,) = re.findall(rf"`(cat secrets/settings.py >> {settings})`", PAGES["install"].read_text())
    return "\n".join(
        [
            SHELL,
            # The existing project.
            "django-admin startproject portal .",
            append(settings, DATABASES[kind]),
            f"cat > portal/views.py <<'END'\n{VIEWS}END",
            f"cat > portal/urls.py <<'END'\n{URLS}END",
            append("portal/tests.py", TESTS),
            "python manage.py test 2>&1 | tee before; grep -q '^Ran 8 tests' before",
            "python manage.py migrate -v 0",
            "python manage.py shell -v 0 < ../accounts.py",
            # The last line of its settings has no newline.
            f"printf 'DEBUG = True' >> {settings}",
            append(settings, f"\n{block('install', 'installed')}"),
            init,
            append_settings,
            "if python manage.py check 2> missing; then exit 1; fi",
            "cat missing; test $(wc -l < missing) = 1; grep -q 'OIDC_ISSUER, OIDC_CLIENT_ID and' missing",
            f"sed -i 's|^#OIDC_ISSUER=|OIDC_ISSUER=http://127.0.0.1:{op_port}|' secrets/portal.env",
            "sed -i 's|^#OIDC_CLIENT_ID=|OIDC_CLIENT_ID=phi-portal|' secrets/portal.env",
            "sed -i 's|^#OIDC_CLIENT_SECRET=|OIDC_CLIENT_SECRET=demo-secret-not-for-production|' secrets/portal.env",
            environment,
            append(settings, block("install", "loopback")),
            "if python manage.py check 2> missing; then exit 1; fi; grep E070 missing",
            append("portal/urls.py", block("install", "urls")),
            *commands("migrate"),
            f"{provider} --port {op_port} --portal http://127.0.0.1:{port} &",
            f"answers {op_port}",
            *commands("check"),
            f"python manage.py runserver --noreload {port} &",
            f"answers {port}",
            f"python ../visit.py http://127.0.0.1:{port}/ | tee seen; grep -q '^phi_[a-z0-9]* True$' seen",
            f"sed s/amina/jonas/g ../visit.py > visit.py; python visit.py http://127.0.0.1:{port}/ | tee seen",
            "grep -q '^phi_[a-z0-9]* True$' seen",
            "python manage.py shell -v 0 < ../signed_out.py | tee passwords; grep -q 'password: False' passwords",
            "python manage.py test 2>&1 | tee after; grep -q '^Ran 8 tests' after; grep -q '^OK' after",
            append("conftest.py", block("testing", "plugins")),
            "DJANGO_SETTINGS_MODULE=portal.settings python -m pytest -q portal/tests.py | tee after",
            "grep -q '8 passed' after",
            append(settings, block("install", "passwords")),
            "python manage.py shell -v 0 < ../password.py | tee passwords; grep -q 'password: True' passwords",
            "python manage.py check 2>&1 | tee warnings; grep -q W007 warnings",
            "python manage.py phi_oidc sessions end --all --yes",
            # Another developer, or CI.
            "rm -r secrets; unset $(env | grep -oE '^(OIDC|PHI)_[A-Z_]+')",
            block("testing", "ci").replace("$ ", "").strip() + " 2>&1 | tee after; grep -q '^OK' after",
        ]
    )


@contextmanager
def database(kind: str, folder: Path) -> Iterator[dict[str, str]]:
    if kind == "sqlite":
        yield {}
        return
    with scratch_databases(folder, shared=True) as environment:
        yield {name: value for name, value in environment.items() if name.startswith(("TEST_DATABASE", "DATABASE_URL"))}


def run(kind: str, tmp_path: Path) -> str:
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in {
        "visit": VISIT,
        "accounts": ACCOUNTS,
        "password": PASSWORD,
        "signed_out": SIGNED_OUT + PASSWORD,
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "script").write_text(script(kind, free_port(), free_port()))
    with database(kind, tmp_path) as variables, (tmp_path / "output").open("w") as output:
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            **variables,
        }
        shell = subprocess.Popen(
            ["bash", tmp_path / "script"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = shell.wait(timeout=300)
        finally:
            # A shell that failed early has left no process.
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    printed = (tmp_path / "output").read_text()
    assert status == 0, printed
    return printed


@pytest.mark.sqlite
def test_page_leads_from_an_existing_project_on_sqlite_to_a_sign_in(tmp_path: Path) -> None:
    assert "0 failures" in run("sqlite", tmp_path)


@pytest.mark.postgresql
@pytest.mark.without_pooler("the page leads to a project without the settings for a pooler")
def test_page_leads_from_an_existing_project_on_postgresql_to_a_sign_in(tmp_path: Path) -> None:
    assert "0 failures" in run("postgresql", tmp_path)


def test_page_has_the_lines_of_the_readme_and_the_promised_number_of_them() -> None:
    for name in ("install", "installed", "init", "urls"):
        assert block("install", name) == block("README", name)
    settings = [line for line in (block("README", "settings") + block("install", "installed")).splitlines() if line]
    promised = re.search(r"It takes four commands, (\d+) lines of settings\s+and one line of URLs", text := page())
    assert promised, text
    assert int(promised[1]) == len(settings)
    assert block("install", "urls").count("\n") == 1
    assert len([*commands("install"), *commands("init"), *commands("migrate")]) == 4


def test_role_of_the_audit_database_can_be_changed_afterwards() -> None:
    names = {
        "DATABASES": add_audit_database({"default": {"ENGINE": "django.db.backends.postgresql", "USER": "portal"}})
    }
    exec(block("install", "role"), names)
    assert {alias: declared["USER"] for alias, declared in names["DATABASES"].items()} == {
        "default": "portal",
        "phi_audit": "portal_audit",
    }


def page() -> str:
    return PAGES["install"].read_text()
