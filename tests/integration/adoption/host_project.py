"""A host project in a folder, with its own processes: it is moved from another library to this package by a page."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from django_phi_oidc.testing.mock_provider import Account, Client, DemoProvider
from tests.support.manual_blocks import ROOT, block
from tests.support.temporary_databases import scratch_databases

SECRET = "s3cret & more:/+%"
BASE = "http://testserver"
EXAMPLE_ISSUER = "https://sso.example.org"
USERS = [f"user{number}" for number in range(20)]
SETTINGS = """\
import os
from pathlib import Path

from tests.support import databases

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "a key for tests only, long enough to please the deployment checks: 0123456789"
DEBUG = True
ALLOWED_HOSTS = ["testserver"]
USE_TZ = True
ROOT_URLCONF = "portal.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    {apps}
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    {middleware}
]
TEMPLATES = [
    {{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {{
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        }},
    }},
]
DATABASES = {{"default": databases.declare(os.environ)["default"]}}
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "/"
AUTHENTICATION_BACKENDS = ["{backend}"]
{library}
"""
URLS = """\
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.urls import include, path


@login_required
def home(request):
    return HttpResponse(f"user={{request.user.pk}}")


urlpatterns = [
    {library}
    path("", home),
]
"""
MANAGE = """\
import sys

from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""


@dataclass
class HostProject:
    """The project in `folder`. Its page is the manual's page that moves it to this package."""

    folder: Path
    page: str
    op: DemoProvider
    environment: dict[str, str]
    cookies: dict[str, str] = field(default_factory=dict)
    """The session cookie of each user who has signed in."""

    @property
    def settings(self) -> Path:
        return self.folder / "portal" / "settings.py"

    def append_settings(self, text: str) -> None:
        self.settings.write_text(self.settings.read_text() + text)

    def run_shell(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def run_block(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the commands of a block of the page at once, and stop at the first that fails."""
        lines = [line.removeprefix("$ ") for line in block(self.page, name).splitlines() if line.startswith("$ ")]
        return self.run_shell("\n".join(lines))

    def manage(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def apply_diff(self, name: str, file: str) -> None:
        """Replace the lines of a block of the page in a file of the portal."""
        path = self.folder / "portal" / file
        text = path.read_text()
        lines = block(self.page, name).splitlines()
        removed = [line.removeprefix("-") for line in lines if line.startswith("-")]
        added = [line.removeprefix("+") for line in lines if line.startswith("+")]
        for line in removed:
            assert f"{line}\n" in text, line
            text = text.replace(f"{line}\n", "".join(f"{new}\n" for new in added) if line == removed[-1] else "")
        path.write_text(text)

    def assert_printed_as_on_the_page(self, printed: str, block_name: str) -> None:
        """Compare what migrate-from prints with a block of the page, whose provider is not on http."""
        expected = read_printed_settings(localize(block(self.page, block_name), self.op))
        declared = read_printed_settings(printed)
        for provider in declared["PROVIDERS"].values():
            assert provider.pop("allow_loopback_http") is True
        assert declared == expected
        assert expected["PROVIDERS"].popitem()[1]["issuer"] == self.op.issuer
        assert SECRET not in printed

    def load_environment(self, **values: str) -> None:
        """Set the variables of `secrets/portal.env`, and these, which are comments there."""
        lines = (self.folder / "secrets" / "portal.env").read_text().splitlines()
        assert [line for line in lines if line.startswith("#")] == [f"#{name}=" for name in values]
        variables = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        self.environment |= variables | values

    def create_settings(self, block_name: str) -> None:
        """Follow a block of the page: create keys and settings, append these. Then set the environment."""
        created = self.run_block(block_name)
        assert created.returncode == 0, created.stderr
        written = (self.folder / "secrets" / "settings.py").read_text()
        lines = written.partition("PHI_OIDC")[0] + "PHI_OIDC" + block(self.page, "printed").partition("PHI_OIDC")[2]
        assert len([line for line in lines.splitlines() if line and not line.startswith("#")]) <= 15
        assert SECRET not in written + (self.folder / "secrets" / "portal.env").read_text()
        self.load_environment(OIDC_CLIENT_SECRET=SECRET)

    def visit(self, *visits: dict[str, Any]) -> list[dict[str, Any]]:
        """Visit the portal in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.adoption.visit_process"],
            input=json.dumps(visits),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def sign_in(self, users: Sequence[str], *, path: str = "/oidc/authenticate/") -> list[dict[str, Any]]:
        """Sign users in, each in a new browser, and keep their cookies."""
        results = self.visit(*({"sign_in": user, "path": path} for user in users))
        self.cookies |= {user: result["cookie"] for user, result in zip(users, results, strict=True)}
        return results

    def find_signed_in(self, cookies: dict[str, str]) -> dict[str, str]:
        """Return the primary key of the user of each session cookie; empty if the session is not valid."""
        results = self.visit(*({"cookie": cookie} for cookie in cookies.values()))
        return {user: result["user"] for user, result in zip(cookies, results, strict=True)}

    def read_database(self, expression: str) -> Any:
        """Return what a Python expression is in the project, as JSON; User is the user model."""
        script = "import json; from django.contrib.auth import get_user_model; User = get_user_model(); "
        done = self.manage("shell", "--verbosity", "0", "-c", f"{script}print(json.dumps({expression}))")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


def localize(text: str, op: DemoProvider) -> str:
    """Return text of a page with the issuer of the mock provider instead of the example."""
    return text.replace(EXAMPLE_ISSUER, op.issuer)


@contextmanager
def run_host_project(
    folder: Path, page: str, *, redirect_uri: str, urls: str, library: str, **parts: str
) -> Iterator[HostProject]:
    """Yield the project with its databases and the mock provider. library: settings, with the example's issuer."""
    claims = {user: {"email": f"{user}@example.org", "email_verified": True} for user in USERS}
    accounts = [Account(user, f"password of {user}", claims=user_claims) for user, user_claims in claims.items()]
    callback = f"{BASE}/oidc/callback/"
    logged_out = f"{BASE}/oidc/logged-out/"
    client = Client(
        "portal", SECRET, [callback, redirect_uri], post_logout_redirect_uris=[logged_out], require_pkce=False
    )
    op = DemoProvider([client], accounts)
    with scratch_databases(folder) as environment, op.running():
        project = HostProject(folder / "project", page, op, {**environment})
        paths = (str(ROOT), str(project.folder), *filter(None, [os.environ.get("PYTHONPATH")]))
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        project.environment |= {
            "PATH": binaries,
            "PYTHONPATH": os.pathsep.join(paths),
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "PORTAL_SECRET": SECRET,
        }
        (project.folder / "portal").mkdir(parents=True)
        (project.folder / "manage.py").write_text(MANAGE)
        (project.folder / "portal" / "__init__.py").touch()
        (project.folder / "portal" / "urls.py").write_text(URLS.format(library=urls))
        project.settings.write_text(SETTINGS.format(library=localize(library, op), **parts))
        yield project


def read_printed_settings(printed: str, **environment: str) -> dict[str, Any]:
    """Return PHI_OIDC of the output of migrate-from, which is Python, with the environment variables that it names."""
    named = dict(re.findall(r"^# - (OIDC_\w+)=(.*)$", printed, re.MULTILINE))
    secrets = dict.fromkeys(re.findall(r"^# - (OIDC_\w+): ", printed, re.MULTILINE), "a secret")
    keys = {f"PHI_{ring}_KEYS": "a key" for ring in ("ENCRYPTION", "SUBJECT", "AUDIT_MAC")}
    names: dict[str, Any] = {}
    with patch.dict(os.environ, {**named, **secrets, **keys, **environment}):
        exec(printed, names)
    declared: dict[str, Any] = names["PHI_OIDC"]
    return declared
