"""Virtual environments, as a project has one: Django and the driver of the database, installed by pip."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("django_phi_oidc", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
PYTHONS = ("python3.13", "python3.12", "python3.14")
FIRST_OF_DJANGO_61 = (3, 12)
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


class EnvironmentMissing(LookupError):
    """No installed Python can run the wanted version of Django."""


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout from a copy, with pip's isolated build, and return its path."""
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name)
    run(sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", folder / "wheels", copy)
    (wheel,) = (folder / "wheels").glob("django_phi_oidc-*.whl")
    return wheel


def create_base(folder: Path, django: str) -> Path:
    """Create an environment with this version of Django ("5.2"), and return its folder.

    Raises: EnvironmentMissing.
    """
    python = find_python(django)
    run(python, "-m", "venv", folder)
    run(folder / "bin" / "python", *PIP, "install", f"django~={django}.0", "psycopg[binary]")
    return folder


def copy_environment(base: Path, folder: Path) -> Path:
    """Copy the environment for one project, which is faster than a new one, and return its Python.

    A copy works because Python finds its environment by its own path. Only `python -m` may be used, because scripts
    such as `pip` contain the path of the original. The files are shared: pip replaces files, and never changes one.
    """
    shutil.copytree(base, folder, symlinks=True, copy_function=os.link)
    return folder / "bin" / "python"


@cache
def find_python(django: str) -> str:
    """Return a Python for this version of Django: that of the tests, if it can run it. Raises: EnvironmentMissing."""
    if django != "6.1" or sys.version_info >= FIRST_OF_DJANGO_61:
        return sys.executable
    for name in PYTHONS:
        path = shutil.which(name)
        if (
            path
            and subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode == 0
        ):
            return path
    raise EnvironmentMissing(f"Django {django} needs one of {', '.join(PYTHONS)} with venv on PATH.")


def run(*words: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command that has to succeed, and return what it printed on standard output. Raises: AssertionError."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=clean_environment() if env is None else env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
    return done.stdout


def clean_environment() -> dict[str, str]:
    """Return the environment without what would lead a new process to this checkout or to the databases of a run."""
    hidden = ("DJANGO_", "PYTHON", "PHI_", "TEST_", "DATABASE_", "COV")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden) and name != "VIRTUAL_ENV"}
