"""Ten misconfigurations of a new project: what `check`, the doctor, the log, the event and the page say.

Each is made in a project of `startproject` and `phi_oidc init`, by processes as an operator starts them. The table in
the manual must say what they print, and whatever reports a mistake must name the cure.
"""

import html
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.testing.mock_provider import Client, DemoProvider, demo_accounts
from tests.support.manual_blocks import PAGES, ROOT, commands

pytestmark = pytest.mark.sqlite
PORTAL = "http://testserver"
SETTINGS = """
import os
INSTALLED_APPS += ["django_phi_oidc", "django_phi_oidc.audit"]
INSTALLED_APPS += ["django_phi_oidc.contrib.adoption", "django_phi_oidc.contrib.doctor"]
DEBUG = os.environ.get("DEBUG") == "on"
ALLOWED_HOSTS = ["testserver"]
LOGIN_REDIRECT_URL = "/admin/"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = False
DATABASES["default"]["OPTIONS"] = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON;",
}
"""
CHANGES = """
DATABASES["phi_audit"] |= {"NAME": BASE_DIR / "audit.sqlite3", "OPTIONS": DATABASES["default"]["OPTIONS"]}
PHI_OIDC["PROVIDERS"]["default"]["allow_loopback_http"] = True
"""
URLS = """
from django.contrib import admin
from django.urls import include, path
urlpatterns = [path("admin/", admin.site.urls), path("oidc/", include("django_phi_oidc.urls"))]
"""
OF_LOOPBACK = {"W006", "transport_not_https"}
"""What check and doctor say of the http of these tests."""
REVOCATION = "django_phi_oidc.middleware.RevocationMiddleware"


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A change of the settings or of the environment. cure: words of each report."""

    settings: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    provider: str = "plain"
    """`pushed`: one that accepts pushed requests."""
    cure: str
    doctor_cure: str = ""
    """If it differs."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the processes print."""

    check: str
    doctor: str
    page: Mapping[str, Any]


MISTAKES = {
    "short key": Mistake(environment={"PHI_ENCRYPTION_KEYS": "abc"}, cure="keys generate|Set the list of keys"),
    "issuer with a slash too many": Mistake(
        environment={"OIDC_ISSUER": "{issuer}/"}, cure="exactly as in the metadata"
    ),
    "http issuer": Mistake(environment={"OIDC_ISSUER": "http://id.example.org"}, cure="https"),
    "middleware missing": Mistake(settings=f'MIDDLEWARE.remove("{REVOCATION}")', cure=REVOCATION),
    "middleware misplaced": Mistake(
        settings=f'MIDDLEWARE.remove("{REVOCATION}"); MIDDLEWARE.insert(0, "{REVOCATION}")',
        cure="must come after (Session|Authentication)Middleware",
    ),
    "unknown claim": Mistake(
        settings='PHI_OIDC["CLAIMS"]["birth_date"] = PHI_OIDC["CLAIMS"].pop("birthdate") | {"essential": True}',
        cure="did you mean birthdate|Correct the name of the claim in CLAIMS",
        doctor_cure="Correct it in CLAIMS",
    ),
    "misspelt option": Mistake(
        settings='PHI_OIDC["PROVIDERS"]["default"]["client_secrets"] = "s3cret"',
        cure="did you mean client_secret|Correct the option that the log names",
    ),
    "wrong secret": Mistake(
        environment={"OIDC_CLIENT_SECRET": "another"},
        cure="client_secret(,| or) client_keys.* must be those of the registration",
    ),
    "provider down": Mistake(
        environment={"OIDC_ISSUER": "http://127.0.0.1:{closed}"},
        cure="Check the host name of the issuer, DNS, the firewall",
    ),
    "redirect URI not registered": Mistake(
        environment={"OIDC_CLIENT_ID": "moved"}, cure=f"Register exactly {PORTAL}/oidc/callback/ as a redirect URI"
    ),
    "the same, with pushed requests": Mistake(
        environment={"OIDC_CLIENT_ID": "moved"},
        provider="pushed",
        cure="Register the redirect URI of the portal",
        doctor_cure=f"Register exactly {PORTAL}/oidc/callback/ as a redirect URI",
    ),
}
NOTHING = Mistake(cure="")


class Project:
    """A project in a folder, with its databases."""

    def __init__(self, folder: Path, providers: Mapping[str, DemoProvider], closed_port: int) -> None:
        self.folder = folder
        self.values = {
            name: {"issuer": provider.issuer, "closed": str(closed_port)} for name, provider in providers.items()
        }
        self.run("-m", "django", "startproject", "portal", ".")
        self.append("settings", SETTINGS)
        self.run("manage.py", "phi_oidc", "init", "secrets")
        self.append("settings", (folder / "secrets" / "settings.py").read_text() + CHANGES)
        (folder / "portal" / "urls.py").write_text(URLS)
        lines = (folder / "secrets" / "portal.env").read_text().splitlines()
        self.keys = {name: value for name, _, value in (line.partition("=") for line in lines) if value}
        for alias in ("default", "phi_audit"):
            self.run(
                "manage.py", "migrate", "--verbosity=0", f"--database={alias}", environment=self.variables(NOTHING)
            )

    def append(self, module: str, text: str) -> None:
        with (self.folder / "portal" / f"{module}.py").open("a") as file:
            file.write(text)

    def variables(self, mistake: Mistake, *, debug: str = "on") -> dict[str, str]:
        """Return the environment of a process. The module of the settings is that of the mistake."""
        values = self.values[mistake.provider]
        credentials = {"OIDC_ISSUER": values["issuer"], "OIDC_CLIENT_ID": "portal", "OIDC_CLIENT_SECRET": "s3cret"}
        changed = {name: value.format(**values) for name, value in mistake.environment.items()}
        module = "settings"
        if mistake.settings:
            module = f"mistake_{abs(hash(mistake.settings))}"
            text = f"from portal.settings import *\n{mistake.settings}\n"
            (self.folder / "portal" / f"{module}.py").write_text(text)
        return {**self.keys, **credentials, **changed, "DEBUG": debug, "DJANGO_SETTINGS_MODULE": f"portal.{module}"}

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, fails: bool | None = False
    ) -> subprocess.CompletedProcess[str]:
        """Run Python in the folder. fails: whether the status must not be 0; None: it may be any."""
        path = f"{self.folder}{os.pathsep}{ROOT}"
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": path, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert fails is None or bool(done.returncode) is fails, done.stdout + done.stderr
        return done

    def observe(self, mistake: Mistake) -> Observation:
        """Run the commands of the manual, and sign in once."""
        check, doctor = (words[1:] for words in commands("troubleshooting", "first"))
        doctor = [PORTAL if word.startswith("https:") else word for word in doctor]
        environment = self.variables(mistake)
        checked, examined = (self.run(*words, environment=environment, fails=None) for words in (check, doctor))
        served = self.run(
            "-m", "tests.integration.misconfigured_project", environment=self.variables(mistake, debug="off")
        )
        return Observation(
            check=checked.stdout + checked.stderr,
            doctor=examined.stdout + examined.stderr,
            page=json.loads(served.stdout),
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with ExitStack() as stack:
        offers: dict[str, Any] = {"plain": "off", "pushed": "offered"}
        providers = {name: DemoProvider(accounts=demo_accounts(), par=par) for name, par in offers.items()}
        for provider in providers.values():
            stack.enter_context(provider.running())
            provider.register_client(Client("portal", "s3cret", [f"{PORTAL}/oidc/callback/"]))
            provider.register_client(Client("moved", "s3cret", ["https://portal.example/oidc/callback/"]))
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))
        yield Project(tmp_path_factory.mktemp("project"), providers, closed.getsockname()[1])


@pytest.fixture(scope="module")
def observations(project: Project) -> dict[str, Observation]:
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(project.observe, [NOTHING, *MISTAKES.values()])
    return dict(zip(["", *MISTAKES], found, strict=True))


@pytest.fixture(scope="module")
def event_pages(project: Project, observations: Mapping[str, Observation]) -> dict[str, str]:
    """Return what the admin shows of the event of each page."""
    references = {name: found.page["reference"] for name, found in observations.items()}
    ids = [reference for reference in references.values() if reference]
    words = ("-m", "tests.integration.misconfigured_project", "events", *ids)
    shown = json.loads(project.run(*words, environment=project.variables(NOTHING, debug="off")).stdout)
    return {name: html.unescape(shown[reference]) for name, reference in references.items() if reference}


def rows() -> dict[str, list[str]]:
    """Return the cells of the table in the manual, by the mistake."""
    section = PAGES["troubleshooting"].read_text().partition("\n## Misconfigurations\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines[1:]}


def codes_in(cell: str) -> set[str]:
    return set(re.findall(r"`([\w.]+)`", cell))


def ids_in(output: str) -> set[str]:
    return set(re.findall(r"\(django_phi_oidc\.([EW]\d{3})\)", output)) - OF_LOOPBACK


def test_project_without_a_mistake_signs_in(observations: Mapping[str, Observation]) -> None:
    found = observations[""]
    assert ids_in(found.check) == set()
    assert "  failure" not in found.doctor
    assert "http://testserver/oidc/callback/ is registered" in found.doctor
    assert (found.page["status"], found.page["log"]) == (302, "")


def test_table_lists_each_mistake() -> None:
    assert list(rows()) == ["missing environment variable", *MISTAKES]


@pytest.mark.parametrize("name", MISTAKES)
def test_check_and_doctor_say_what_the_table_says(name: str, observations: Mapping[str, Observation]) -> None:
    found, mistake = observations[name], MISTAKES[name]
    check, doctor, *_ = rows()[name]
    assert ids_in(found.check) == codes_in(check)
    if codes_in(check):
        assert re.search(mistake.cure, found.check)
    if doctor == "the same":
        assert ids_in(found.doctor) == codes_in(check)
        assert re.search(mistake.cure, found.doctor)
        return
    lines = [line for line in found.doctor.splitlines() if line.startswith(("  failure", "  warning"))]
    reported = {code for line in lines for code in re.findall(r"\[([\w.]+)\]$", line)} - OF_LOOPBACK
    assert reported == codes_in(doctor)
    if reported:
        assert re.search(mistake.doctor_cure or mistake.cure, found.doctor)


@pytest.mark.parametrize("name", MISTAKES)
def test_log_event_and_page_say_what_the_table_says(
    name: str, observations: Mapping[str, Observation], event_pages: Mapping[str, str]
) -> None:
    page, mistake = observations[name].page, MISTAKES[name]
    *_, logged, shown = rows()[name]
    refusals = [line for line in page["log"].splitlines() if line.startswith("A sign-in was refused")]
    assert codes_in(logged) == {
        value for line in refusals for value in re.findall(r"(?:reason|provider_error)=(\w+)", line)
    } | ({"ImproperlyConfigured"} if "ImproperlyConfigured" in page["log"] else set())
    assert shown == (str(page["status"]) if page["heading"] else "the sign-in works")
    if codes_in(logged):
        assert re.search(mistake.cure, page["log"])
    if page["reference"]:
        assert page["reference"] in refusals[0]
        assert re.search(mistake.cure, event_pages[name])
        assert all(code in event_pages[name] for code in codes_in(logged))
    for internal in (*codes_in(logged), "PHI_OIDC", "Traceback", "another", "s3cret", "MIDDLEWARE"):
        assert internal not in page["text"]


@pytest.mark.parametrize(
    "words",
    [
        ("manage.py", "check"),
        ("manage.py", "phi_oidc", "doctor"),
        ("-c", "import portal.wsgi"),
    ],
)
def test_missing_environment_variable_is_one_sentence_that_names_it(project: Project, words: tuple[str, ...]) -> None:
    environment = project.variables(NOTHING)
    del environment["OIDC_CLIENT_SECRET"]
    done = project.run(*words, environment=environment, fails=True)
    (line,) = (done.stdout + done.stderr).strip().splitlines()
    assert "OIDC_CLIENT_SECRET" in line
    check, *_ = rows()["missing environment variable"]
    assert check.strip("*") in line
