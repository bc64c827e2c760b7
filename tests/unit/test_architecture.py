"""The contracts of .importlinter hold, they bite, and no file escapes them."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "django_phi_oidc"
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 70

FREE_OF_DJANGO = (
    "errors",
    "client_keys",
    "declarations",
    "api_rules",
    "emergency_rules",
    "options",
    "role_rules",
    "oidc",
    "merkle",
    "metering",
    "secrecy",
    "access.policy",
    "access.roles",
    "audit.bundle",
    "audit.events",
    "audit.findings",
    "audit.vocabulary",
    "claims.catalog",
    "delivery.cef",
    "delivery.collector",
    "delivery.declaration",
    "delivery.fhir",
    "delivery.formats",
    "delivery.items",
    "delivery.ocsf",
    "delivery.rfc5424",
    "desk.drawing",
    "sessions.timeouts",
    "subjects.codes",
    "subjects.digest",
    "watch.doctor",
    "watch.rules",
    "watch.leakage",
)
PLANTED = {
    "a file without a floor": ("utils.py", ""),
    "a room that is not in the plan": ("claims/helpers.py", ""),
    "an import that points up": ("oidc/__init__.py", "from django_phi_oidc import conf\n"),
    "a framework in the core": ("oidc/__init__.py", "import django.conf\n"),
    "a feature that looks at its neighbour": ("access/__init__.py", "from django_phi_oidc import subjects\n"),
}

ENDED = re.compile(r"\b(ended_at|end_reason)\b")
ONLY_WAY_OUT = PACKAGE / "sessions" / "ending.py"
READS = {"filter", "exclude", "get", "Q"}
"""Calls whose keyword arguments ask, and write nothing."""
BY_NAME = {"setattr", "save", "asave", "bulk_update", "abulk_update"}
"""Calls that are told the names of what they write."""
WRITES = {
    "an update": "rows.update(ended_at=now)",
    "an update by a dictionary": 'rows.update(**{"end_reason": reason})',
    "a call of who knows what": 'getattr(rows, "update")(ended_at=now)',
    "a dictionary of keywords": "dict(ended_at=now)",
    "a row that is made": "OIDCSession(pk=pk, ended_at=now)",
    "a row that is made by its manager": "OIDCSession.objects.create(end_reason=reason)",
    "an attribute": "session.ended_at = now",
    "an attribute beside another": "session.user, session.end_reason = None, reason",
    "an attribute that is added to": 'session.end_reason += "!"',
    "an attribute by name": 'setattr(session, "ended_at", now)',
    "a save": 'session.save(update_fields=["user", "ended_at"])',
    "many saves": 'rows.bulk_update(found, ("end_reason",))',
    "SQL": 'cursor.execute("UPDATE django_phi_oidc_oidcsession SET ended_at = now()")',
}
NO_WRITES = {
    "a filter": "rows.filter(ended_at=None, pk=pk)",
    "a condition": "Q(ended_at__isnull=True) | Q(end_reason=reason)",
    "a look": "found = session.ended_at or session.end_reason",
    "columns that are read": 'rows.values_list("ended_at", *("end_reason",)); list_display = ("id", "ended_at")',
    "what a row tells": '{"ended_at": at(session.ended_at), "end_reason": session.end_reason or None}',
    "a function of that name": "def end_reason(refusal): return refreshing.end_reason(refusal)",
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


def writes_an_end(node: ast.AST) -> bool:
    """Say whether that is where code writes that a session has ended, or why."""
    match node:
        case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()):
            return bool(ENDED.fullmatch(name))
        case ast.Call(func=called, keywords=keywords):
            name = getattr(called, "attr", getattr(called, "id", ""))
            is_named = any(ENDED.fullmatch(keyword.arg or "") for keyword in keywords)
            return (is_named and name not in READS) or (name in BY_NAME and bool(ENDED.search(ast.unparse(node))))
        case ast.Dict(keys=keys, values=values):
            said = {
                ast.unparse(key).strip("'"): ast.unparse(value) for key, value in zip(keys, values, strict=True) if key
            }
            # What holds a row's own value tells of that row.
            return any(ENDED.fullmatch(name) and f".{name}" not in value for name, value in said.items())
        case ast.Constant(value=str(text)):
            return "UPDATE" in text.upper() and bool(ENDED.search(text))
    return False


def ends_written_in(source: str) -> list[int]:
    """Return the lines that do."""
    return [getattr(node, "lineno", 0) for node in ast.walk(ast.parse(source)) if writes_an_end(node)]


@pytest.mark.parametrize("source", WRITES.values(), ids=WRITES)
def test_write_of_an_end_is_found(source: str) -> None:
    assert ends_written_in(source) != []


@pytest.mark.parametrize("source", NO_WRITES.values(), ids=NO_WRITES)
def test_what_only_reads_of_an_end_is_no_write_of_it(source: str) -> None:
    assert ends_written_in(source) == []


def test_no_file_but_ending_writes_that_a_session_has_ended() -> None:
    """It is the only way out: whoever wrote that past it would leave tokens, claims and a Django session alive."""
    written = {path: lines for path in sources() if (lines := ends_written_in(path.read_text()))}
    assert list(written) == [ONLY_WAY_OUT], written
