"""What is installed is locked, by version and hash, and somebody looks after it."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements-dev.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
pytestmark = pytest.mark.sqlite


def entries(lock: str) -> dict[str, list[tuple[Version, str]]]:
    """Return by name what is locked: each version, and what follows it."""
    found: dict[str, list[tuple[Version, str]]] = {}
    for name, version, rest in re.findall(r"^([\w.-]+)==([^\s;\\]+)(.*(?:\n .*)*)", lock, re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append((Version(version), rest))
    return found


def wanted(extra: str) -> list[Requirement]:
    """Return what the app and that extra ask for, through the extras that it names."""
    asked = [Requirement(line) for line in PROJECT["optional-dependencies"][extra]]
    ours = [inner for each in asked if each.name == PROJECT["name"] for name in each.extras for inner in wanted(name)]
    others = [each for each in asked if each.name != PROJECT["name"]]
    return [*(Requirement(line) for line in PROJECT["dependencies"]), *others, *ours]


def unfit(lock: str) -> list[str]:
    """Return what pyproject.toml asks for and the lock has not, or has in another version."""
    locked = entries(lock)
    return sorted(
        str(each)
        for each in wanted("dev")
        if not any(version in each.specifier for version, _ in locked.get(canonicalize_name(each.name), []))
    )


def unhashed(lock: str) -> list[str]:
    return [name for name, found in entries(lock).items() if any("--hash=sha256:" not in rest for _, rest in found)]


def test_lock_has_all_that_the_tools_and_tests_ask_for() -> None:
    assert unfit(LOCK) == []
    assert unfit(re.sub(r"(?m)^ruff==.*", "ruff==0.1.0", LOCK)) == ["ruff==0.17.6"]
    assert unfit(LOCK.replace("\ncelery", "\nanother")) != []


def test_lock_has_a_hash_of_each_file_and_names_no_index() -> None:
    assert len(entries(LOCK)) > 60
    assert unhashed(LOCK) == []
    assert unhashed(LOCK + "\nanother==1.0\n    # via nobody\n") == ["another"]
    assert "://" not in LOCK


@pytest.mark.parametrize(
    ("ecosystem", "directory", "manifest"),
    [
        ("pip", "/", "pyproject.toml"),
        ("npm", "/tests/integration/interop", "package-lock.json"),
        ("github-actions", "/", ""),
    ],
)
def test_updates_are_proposed_for_each_manifest(ecosystem: str, directory: str, manifest: str) -> None:
    told = (ROOT / ".github" / "dependabot.yml").read_text()
    assert f"package-ecosystem: {ecosystem}\n    directory: {directory}\n" in told
    assert (ROOT / directory.strip("/") / manifest).exists()


def test_every_manifest_is_looked_after() -> None:
    """Nobody adds a second lock file that no update and no audit reaches."""
    ignored = {"node_modules", "build", "mutants", ".tox", "var"}
    found = {
        path.relative_to(ROOT)
        for pattern in ("package-lock.json", "*.lock", "requirements*.txt")
        for path in ROOT.rglob(pattern)
        if not any(part.startswith(".venv") or part in ignored for part in path.relative_to(ROOT).parts)
    }
    assert found == {Path("requirements-dev.lock"), Path("tests/integration/interop/package-lock.json")}
