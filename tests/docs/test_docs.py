"""The documentation and the code agree, and the README's example runs."""

import os
import re
import socket
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command

from django_phi_oidc import extensions
from django_phi_oidc.audit.events import DETAIL_KEYS, Action
from django_phi_oidc.checks import core
from django_phi_oidc.errors import Code
from django_phi_oidc.sessions.models import EndReason
from tests.support.check_sources import CHECK_MODULES
from tests.support.databases import child_environment
from tests.support.rule_code_catalogue import list_all_codes

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def in_backticks(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def test_every_rule_code_is_documented() -> None:
    assert {*list_all_codes()} - {Code.SIGN_IN_REFUSED} <= in_backticks(page("reference/codes.md"))


def test_every_event_is_documented_with_its_keys() -> None:
    rows = {
        cells[1].strip("` "): cells[3]
        for line in page("reference/events.md").splitlines()
        if (cells := line.split("|"))[0] == "" and len(cells) == 5
    }
    for action in Action:
        assert in_backticks(rows[action.value]) == set(DETAIL_KEYS[action])


def test_documented_end_reasons_are_those_of_the_code() -> None:
    rows = [
        cells[2]
        for line in page("explanation/how-sessions-end.md").splitlines()
        if (cells := line.split("|"))[0] == "" and len(cells) == 5
    ]
    assert (rows[0].strip(), set(rows[1])) == ("reason", {"-"}), "the header of the table"
    reasons = [in_backticks(reason) for reason in rows[2:]]
    assert all(reasons), "a row without a reason"
    assert set.union(*reasons) == set(EndReason.values)


def test_every_check_is_documented() -> None:
    source = "".join(path.read_text() for path in CHECK_MODULES)
    ids = {f"E{int(n):03}" for n in re.findall(r"\berror\(\s*(\d+)", source)}
    ids |= {f"W{int(n):03}" for n in re.findall(r"\bwarning\(\s*(\d+)", source)}
    ids |= {f"W{number:03}" for number, *_ in core._PROVIDER_WARNINGS}
    assert {f"django_phi_oidc.{number}" for number in ids} == {
        name for name in in_backticks(page("reference/checks.md")) if re.fullmatch(r"django_phi_oidc\.[EW]\d+", name)
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_have_a_target(path: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", path.read_text()) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_readme_names_existing_make_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\$ make ([a-z]+)", (ROOT / "README.md").read_text())) <= targets


def block(name: str) -> str:
    found = re.search(rf"<!-- tested: {name} -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


BEFORE = """
import os
from tests.settings import SECRET_KEY
USE_TZ = True
ALLOWED_HOSTS = ["127.0.0.1"]
STATIC_URL = "static/"
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
from tests.support import databases
DATABASES = {"default": {**databases.declare(os.environ)["default"], "ATOMIC_REQUESTS": True}}
"""
USE = """
import django
django.setup()
from django.conf import settings
from django.core.management import call_command
from django.core.checks import run_checks
from django.test import Client, RequestFactory
from django.contrib.auth import get_user

messages = run_checks(databases=["default", "phi_audit"])
# The provider of this test is on http, which a project's is not, and the project has no start page.
unexpected = {m.id for m in messages} - {"django_phi_oidc.E006", "django_phi_oidc.W037"}
assert not unexpected, messages

from django_phi_oidc.testing.mock_provider import Client as Registered, DemoProvider, demo_accounts
op = DemoProvider(accounts=demo_accounts(), port=int(os.environ["OP_PORT"]))
client = Client(headers={"host": "127.0.0.1"})
with op.running():
    op.register_client(Registered("portal", "s", ["http://127.0.0.1/oidc/callback/"]))
    begun = client.get("/oidc/authenticate/")
    back = client.get(op.authorize(begun["Location"], "amina"))
    assert back.status_code == 302, back.content
    request = RequestFactory().get("/")
    request.session = client.session
    request.user = get_user(request)
    print(birthdate(request))
"""


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_readme_example_signs_in_and_reveals_a_claim(tmp_path: Path) -> None:
    """Use what `phi_oidc init` writes in a separate project, with the databases of this test."""
    development = 'PHI_OIDC["PROVIDERS"]["default"]["allow_loopback_http"] = True\n'
    secrets = tmp_path / "secrets"
    call_command("phi_oidc", "init", str(secrets), stdout=StringIO())
    keys = dict(line.split("=", 1) for line in (secrets / "portal.env").read_text().splitlines())
    (tmp_path / "project.py").write_text(BEFORE + block("installed") + block("settings") + development)
    (tmp_path / "urls.py").write_text("from django.urls import include, path\nurlpatterns = []\n" + block("urls"))
    view = block("view") + "    return value\n"
    (tmp_path / "use.py").write_text(
        "import os\n"
        + USE.replace(
            "from django_phi_oidc.testing.mock_provider", view + "\nfrom django_phi_oidc.testing.mock_provider", 1
        )
    )
    port = free_port()
    environment = {
        **child_environment(os.environ, settings.DATABASES),
        **keys,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "DJANGO_SETTINGS_MODULE": "project",
        "OIDC_ISSUER": f"http://127.0.0.1:{port}",
        "OIDC_CLIENT_ID": "portal",
        "OIDC_CLIENT_SECRET": "s",
        "OP_PORT": str(port),
    }
    ran = subprocess.run(
        [sys.executable, tmp_path / "use.py"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "1984-03-09\n"), ran.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_example_project_documents_exactly_its_environment_variables() -> None:
    folder = ROOT / "example_project"
    settings_text = (folder / "portal" / "settings.py").read_text()
    names = set(re.findall(r"(?:env\.\w+|key_ring)\(\s*\"([A-Z_]+)\"", settings_text))
    prefixes = "DJANGO|OIDC|PHI|CELERY|PORTAL|DATABASE|CACHE|EMAIL"
    table = set(re.findall(rf"`((?:{prefixes})_[A-Z_]+)", (folder / "README.md").read_text()))
    assert table == names != set()


def test_files_of_the_callback_and_of_the_map_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    package = ROOT / "django_phi_oidc"
    steps = re.findall(r"^\d+\. `([\w/]+\.py)`:", text.partition("## Files that process a callback")[2], re.MULTILINE)
    assert len(steps) == 29
    assert [name for name in steps if not (package / name).is_file()] == []
    map_of_code = text.partition("## Map of the code")[2].partition("## Rules")[0]
    folders = set(re.findall(r"`((?:[a-z_]+/)+)`", map_of_code)) - {"subcommands/"}
    assert [name for name in folders if not (package / name).is_dir()] == []
    parts = {path.parent for path in package.glob("*/__init__.py")} - {package / "contrib"}
    parts |= {path.parent for path in package.glob("contrib/*/__init__.py")}
    names = {f"{path.relative_to(package)}/" for path in parts}
    assert names - folders == {"migrations/", "templatetags/"}


def test_registries_that_contributing_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("Apps take part by registries")[2].partition("\n\n")[0]
    names = in_backticks(text) - {"extensions.py"}
    assert len(names) == 7
    assert [name for name in names if not hasattr(extensions, name)] == []


def test_new_names_of_the_renames_exist() -> None:
    text = page("reference/renames.md")
    rows = re.findall(r"^\| `(django_phi_oidc[\w.]+)`: ([^|]+) \| `([\w.]+)` \|$", text, re.MULTILINE)
    assert len(rows) > 8
    for old, names, new in rows:
        assert find_spec_safely(old) is None
        assert [name for name in in_backticks(names) if not hasattr(import_module(new), name)] == []
    moved = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| `(phi_oidc_\w+)` \|$", text, re.MULTILINE)
    labels = {model._meta.label_lower for model in apps.get_models() if model._meta.app_label.startswith("phi_oidc")}
    # Its table is new.
    labels.remove("phi_oidc_local_accounts.knownnetwork")
    assert {f"{label}.{name}" for names, label in moved for name in in_backticks(names)} == labels


def find_spec_safely(name: str) -> object:
    try:
        return find_spec(name)
    except ModuleNotFoundError:
        return None
