"""An environment with the extra `validators` of pyproject.toml: what the environment of the tests should not have."""

import fcntl
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def validators_python() -> Path:
    """Return the Python of an environment with the validators. It is created once, and again for other versions."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["validators"]
    folder = ROOT / "build" / f"validators-{sys.version_info.major}.{sys.version_info.minor}"
    folder.mkdir(parents=True, exist_ok=True)
    program, installed = folder / "bin" / "python", folder / "installed.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists() or json.loads(installed.read_text()) != wanted:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
            pip = (program, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
            subprocess.run([*pip, *wanted], check=True, timeout=400)
            installed.write_text(json.dumps(wanted))
    return program
