"""The contracts of .importlinter hold, they bite, and no file escapes them."""

import ast
import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "django_phi_oidc"
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 70

FREE_OF_DJANGO = (
    "errors",
    "client_keys",
    "declarations",
    "oidc",
    "merkle",
    "access.policy",
    "audit.bundle",
    "audit.events",
    "audit.findings",
    "claims.catalog",
    "delivery.cef",
    "delivery.collector",
    "delivery.declaration",
    "delivery.fhir",
    "delivery.formats",
    "delivery.items",
    "delivery.ocsf",
    "delivery.rfc5424",
    "sessions.timeouts",
    "subjects.digest",
)
PLANTED = {
    "a file without a floor": ("utils.py", ""),
    "a room that is not in the plan": ("claims/helpers.py", ""),
    "an import that points up": ("oidc/__init__.py", "from django_phi_oidc import conf\n"),
    "a framework in the core": ("oidc/__init__.py", "import django.conf\n"),
    "a feature that looks at its neighbour": ("access/__init__.py", "from django_phi_oidc import subjects\n"),
}


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run lint-imports on the copy of the package that lies in directory."""
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


def copy_of_the_package(directory: Path) -> Path:
    shutil.copy(ROOT / ".importlinter", directory)
    return Path(shutil.copytree(PACKAGE, directory / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")))


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_import_contracts_as_they_stand_are_kept(tmp_path: Path) -> None:
    copy_of_the_package(tmp_path)
    linted = lint_imports(tmp_path)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize(("file", "line"), PLANTED.values(), ids=PLANTED)
def test_import_contracts_with_a_planted_violation_are_broken(tmp_path: Path, file: str, line: str) -> None:
    planted = copy_of_the_package(tmp_path) / file
    with planted.open("a") as source:
        source.write(line)
    linted = lint_imports(tmp_path)
    assert linted.returncode == 1, linted.stdout + linted.stderr


def test_pure_contract_lists_each_module_that_must_be_free_of_django() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    listed = config["importlinter:contract:pure"]["source_modules"].split()
    paths = {name: PACKAGE.joinpath(*name.split(".")) for name in FREE_OF_DJANGO}
    built = [name for name, path in paths.items() if path.is_dir() or path.with_suffix(".py").exists()]
    assert sorted(listed) == sorted(f"{PACKAGE.name}.{name}" for name in built)


def test_no_file_is_longer_than_the_house_allows() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {path: count for path, count in lines.items() if count > LINES_OF_A_FILE} == {}


def test_no_function_is_longer_than_the_house_allows() -> None:
    too_long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sources()
        if "migrations" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= LINES_OF_A_FUNCTION
    ]
    assert too_long == []
