"""The import contracts hold and detect violations; sizes, names and language of the package are within their limits."""

import ast
import configparser
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "django_phi_oidc"
MAX_ROOT_MODULES = 19
MAX_LISTED_WORDS = 40
GERUNDS = {
    *(
        "accounting",
        "accounting_copies",
        "accounting_suspension_sources",
        "keyring",
        "linking",
        "masking",
        "monitoring",
    ),
    *("accounting_suspensions", "role_mapping", "signing", "signing_keys"),
    *("subject_accounting", "tampering", "throttling"),
}
"""Module names that end in -ing and are terms of the field."""
MIRRORED_NAMES = {
    # What Django, Celery and pytest load, in the root and in each feature.
    *("admin", "backends", "decorators", "forms", "middleware", "models", "receivers", "tasks", "urls", "views"),
    "phi_oidc",
    # The pure declaration in config/, the check in checks/, the subcommand, and the feature that acts on it.
    *("admin_assurance", "apis", "claims", "configuration", "delivery", "emergency", "federation", "roles", "sinks"),
    *("databases", "keys", "scim", "shared_signals", "tiles", "witnesses"),
    # The specification in oidc/, the client's use of it, and the mock provider's endpoint.
    *("authorization_request", "client_auth", "introspection", "registration", "revocation", "rp_initiated_logout"),
    *("event_streams", "token", "userinfo"),
    # What each app may have: its configuration, its checks, the accessors of its options and their declaration, its
    # errors, and what it stores about a person.
    *("apps", "checks", "conf", "declaration", "errors", "personal_data"),
    # What apps register with the core and with the pages of officers.
    *("observers", "officer_pages", "people"),
    # The same concept of two features.
    *("lifecycle", "signals", "step_up", "storage"),
}
LISTED_WORDS = re.compile(r"\b(whoever|whatever|whichever|whom|nobody|somebody|tells?|told|bears?|doomed)\b", re.I)
PLANTED_VIOLATIONS = {
    "a framework in the pure core": ("oidc/__init__.py", "import django.conf\n"),
    "an app in the core": ("sessions/__init__.py", "from django_phi_oidc.contrib import scim\n"),
    "the tools of tests in the core": ("sessions/__init__.py", "from django_phi_oidc import testing\n"),
    "the tools of tests in an app": ("contrib/scim/__init__.py", "from django_phi_oidc import testing\n"),
    "an app that another one does not require": (
        "contrib/scim/__init__.py",
        "from django_phi_oidc.contrib import siem\n",
    ),
    "an app in what apps share": ("contrib/common/__init__.py", "from django_phi_oidc.contrib import scim\n"),
    "what apps share in the core": ("sessions/__init__.py", "from django_phi_oidc.contrib import common\n"),
    "OpenID Connect in the audit log": ("audit/__init__.py", "from django_phi_oidc import oidc\n"),
}
PURE_MODULES = (*("access.policy", "audit.formats", "audit.merkle", "config", "errors", "oidc", "project_settings"),)
WRITE_OF_AN_END = re.compile(
    r"""\b(ended_at|end_reason)\b["']?\s*(=(?!=)|:)(?!\s*(None\b|models\.|.*[."](ended_at|end_reason)\b))"""
)
"""An assignment, a keyword or a dictionary item. A comparison with None is a filter; the value of a row is output."""


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run lint-imports on the copy of the package in directory."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--no-cache", directory / ".importlinter"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def copy_package(directory: Path) -> Path:
    shutil.copy(ROOT / ".importlinter", directory)
    return Path(shutil.copytree(PACKAGE, directory / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")))


def sources() -> list[Path]:
    """Return the modules of the package without migrations."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "migrations" not in path.parts]


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_import_contracts_are_kept(tmp_path: Path) -> None:
    copy_package(tmp_path)
    result = lint_imports(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("file", "line"), PLANTED_VIOLATIONS.values(), ids=PLANTED_VIOLATIONS)
def test_planted_violation_breaks_an_import_contract(tmp_path: Path, file: str, line: str) -> None:
    with (copy_package(tmp_path) / file).open("a") as source:
        source.write(line)
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr


def test_pure_contract_lists_each_pure_module() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    listed = config["importlinter:contract:pure"]["source_modules"].split()
    declarations = [
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("declaration.py")
    ]
    assert {f"{PACKAGE.name}.{name}" for name in (*PURE_MODULES, *declarations)} <= set(listed)


def test_module_names_are_nouns() -> None:
    public = [path.stem for path in sources() if not path.stem.startswith("_")]
    names = {name for name in public if any(part.endswith("ing") for part in name.split("_"))}
    assert names <= GERUNDS


def test_package_root_holds_only_what_django_celery_and_hosts_load() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_ROOT_MODULES


def test_no_module_name_stands_for_two_things() -> None:
    places = defaultdict(list)
    for path in sources():
        if not path.stem.startswith("_"):
            places[path.stem].append(name_of(path))
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in MIRRORED_NAMES} == {}


def test_no_class_name_occurs_twice() -> None:
    places = defaultdict(list)
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name != "Meta":
                places[node.name].append(name_of(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def prose(source: str) -> Iterator[str]:
    """Yield the comments and docstrings of a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def test_docstrings_and_comments_are_plain_english() -> None:
    found = [
        f"{name_of(path)}: {word}"
        for path in sources()
        for text in prose(path.read_text())
        for word in LISTED_WORDS.findall(text)
    ]
    assert len(found) <= MAX_LISTED_WORDS, found


@pytest.mark.parametrize(
    ("line", "is_write"),
    [
        ("rows.update(ended_at=now)", True),
        ('rows.update(**{"end_reason": reason})', True),
        ("session.ended_at = now", True),
        ("OIDCSession(pk=pk, ended_at=now)", True),
        ("rows.filter(ended_at=None, pk=pk)", False),
        ("if session.ended_at == now:", False),
        ('{"end_reason": session.end_reason or None}', False),
        ('ended_at = session["ended_at"]', False),
    ],
)
def test_write_of_a_session_end_is_recognized(line: str, is_write: bool) -> None:
    assert bool(WRITE_OF_AN_END.search(line)) is is_write


def test_only_the_lifecycle_module_ends_sessions() -> None:
    """Code that sets `ended_at` elsewhere would leave tokens, claims and a Django session behind."""
    writers = {
        name_of(path)
        for path in sources()
        for line in path.read_text().splitlines()
        if WRITE_OF_AN_END.search(line) and not line.strip().startswith(("#", '"""'))
    }
    assert writers == {"sessions/lifecycle.py"}
