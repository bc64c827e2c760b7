"""Run a command with an older SQLite: `python -m tests.support.older_sqlite VERSION COMMAND [ARGUMENT ...]`.

The source of SQLite is in packages of npm, so npm and a C compiler are needed, and a Python that loads `libsqlite3` as
a shared library. The library is built once, in `build/`. All processes that the command starts use it, too.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"3.37.2": "better-sqlite3@7.5.0", "3.39.0": "better-sqlite3@7.6.0", "3.40.1": "better-sqlite3@8.1.0"}
"""The packages of npm that have the source of these versions: the oldest supported one, and two with wrong values for
`RETURNING … IS NOT NULL`, of which Debian 12 has the last."""
SOURCE = "package/deps/sqlite3/sqlite3.c"
LIBRARY = "libsqlite3.so.0"


def build_library(version: str, folder: Path) -> None:
    """Build the library in folder, unless it is there. Raises: KeyError, OSError, CalledProcessError."""
    if (folder / LIBRARY).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        directory = Path(name)
        subprocess.run(["npm", "pack", "--silent", PACKAGES[version]], cwd=directory, check=True)
        (archive,) = directory.glob("*.tgz")
        subprocess.run(["tar", "--extract", "--file", archive, SOURCE], cwd=directory, check=True)
        # As Debian builds it. JSON is part of SQLite by default since 3.38. Without usleep, a connection that waits
        # for a lock sleeps whole seconds.
        options = ["-DSQLITE_ENABLE_COLUMN_METADATA", "-DSQLITE_ENABLE_JSON1", "-DHAVE_USLEEP=1"]
        compiler = ["cc", "-O1", "-shared", "-fPIC", *options]
        libraries = ["-lpthread", "-ldl", "-lm"]
        subprocess.run([*compiler, "-o", LIBRARY, SOURCE, *libraries], cwd=directory, check=True)
        (directory / LIBRARY).rename(folder / LIBRARY)


def build_environment(version: str) -> dict[str, str]:
    """Return the environment in which Python loads the library. Raises: RuntimeError if it does not."""
    folder = ROOT / "build" / f"sqlite-{version}"
    build_library(version, folder)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    script = "import sqlite3; print(sqlite3.sqlite_version)"
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if loaded != version:
        raise RuntimeError(f"This Python uses SQLite {loaded}: it does not load a shared library.")
    return environment


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    version, *command = sys.argv[1:]
    os.execvpe(command[0], command, build_environment(version))
