"""Dependencies are locked by version and hash, and updates are proposed for each manifest."""

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


def parse_lock(lock: str) -> dict[str, list[tuple[Version, str]]]:
    """Return the locked versions by name, each with the rest of its entry."""
    found: dict[str, list[tuple[Version, str]]] = {}
    for name, version, rest in re.findall(r"^([\w.-]+)==([^\s;\\]+)(.*(?:\n .*)*)", lock, re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append((Version(version), rest))
    return found


def get_requirements(extra: str) -> list[Requirement]:
    """Return the requirements of the package and of that extra, including the extras that it names."""
    extra_requirements = [Requirement(line) for line in PROJECT["optional-dependencies"][extra]]
    own = [
        inner
        for each in extra_requirements
        if each.name == PROJECT["name"]
        for name in each.extras
        for inner in get_requirements(name)
    ]
    others = [each for each in extra_requirements if each.name != PROJECT["name"]]
    return [*(Requirement(line) for line in PROJECT["dependencies"]), *others, *own]


def find_unsatisfied(lock: str) -> list[str]:
    """Return the requirements of pyproject.toml that the lock does not satisfy."""
    locked = parse_lock(lock)
    return sorted(
        str(each)
        for each in get_requirements("dev")
        if not any(version in each.specifier for version, _ in locked.get(canonicalize_name(each.name), []))
    )


def find_unhashed(lock: str) -> list[str]:
    return [name for name, found in parse_lock(lock).items() if any("--hash=sha256:" not in rest for _, rest in found)]


def test_lock_contains_all_requirements() -> None:
    assert find_unsatisfied(LOCK) == []
    assert find_unsatisfied(re.sub(r"(?m)^ruff==.*", "ruff==0.1.0", LOCK)) == ["ruff==0.17.6"]
    assert find_unsatisfied(LOCK.replace("\ncelery", "\nanother")) != []


def test_lock_has_a_hash_of_each_file_and_no_index() -> None:
    assert len(parse_lock(LOCK)) > 60
    assert find_unhashed(LOCK) == []
    assert find_unhashed(LOCK + "\nanother==1.0\n    # via another\n") == ["another"]
    assert "://" not in LOCK


@pytest.mark.parametrize(
    ("ecosystem", "directory", "manifest"),
    [
        ("pip", "/", "pyproject.toml"),
        ("npm", "/tests/integration/interop", "package-lock.json"),
        ("github-actions", "/", ""),
    ],
)
def test_dependabot_covers_each_manifest(ecosystem: str, directory: str, manifest: str) -> None:
    config = (ROOT / ".github" / "dependabot.yml").read_text()
    assert f"package-ecosystem: {ecosystem}\n    directory: {directory}\n" in config
    assert (ROOT / directory.strip("/") / manifest).exists()


def test_every_manifest_is_covered() -> None:
    """A lock file that no update and no audit covers is found. The exception is in docs/how-to/supply-chain.md."""
    ignored = {"node_modules", "build", "mutants", ".tox", "var"}
    found = {
        path.relative_to(ROOT)
        for pattern in ("package-lock.json", "*.lock", "requirements*.txt")
        for path in ROOT.rglob(pattern)
        if not any(part.startswith(".venv") or part in ignored for part in path.relative_to(ROOT).parts)
    }
    interop = Path("tests/integration/interop")
    not_covered = {interop / "spid_cie" / "requirements.txt"}
    assert found == {Path("requirements-dev.lock"), interop / "package-lock.json", *not_covered}
