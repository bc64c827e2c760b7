"""Runs the processes of the manifests on this machine, with their commands, variables and secrets.

Replaced are only addresses, ports and folders: those of the containers do not exist here. PostgreSQL is reached by its
socket, without TLS, because the server of the tests has none.
"""

import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import psycopg

from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.deployment.manifests import DEPLOY, EXAMPLE, ROOT, Process, list_image_variables, read_variables
from tests.support.glewlwyd import find_free_port
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import SECRET
from tests.support.postgresql import throw_away_server

HOST = "portal.example"
BASE_URL = f"https://{HOST}"
PATIENCE_SECONDS = 120.0
STOP_SECONDS = 20.0
FROM_PROXY = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"}
"""The headers that the proxy adds. The address is the browser's."""
HBA = "local all postgres trust\nlocal all all scram-sha-256\n"
"""The roles of the deployment need their passwords."""


@dataclass
class DeployedBrowser(Browser):
    """A browser for the portal behind the address of a proxy, or of the portal itself with FROM_PROXY as headers."""

    address: str = ""
    certificate: str = ""
    """The path of the server's certificate. Then the connection uses TLS."""
    source: str = "127.0.0.1"
    """The address of the browser."""

    def _connect(self) -> HTTPConnection:
        self.headers["Host"] = HOST
        options: dict[str, Any] = {"timeout": 60, "source_address": (self.source, 0)}
        if not self.certificate:
            return HTTPConnection(self.address, **options)
        context = ssl.create_default_context(cafile=self.certificate)
        # The certificate of the server itself suffices.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return HTTPSConnection(self.address, context=context, **options)

    def user(self) -> str:
        """Return the primary key of the signed-in user, or an empty string."""
        page = self.get("/portal/")
        return page.body.partition('data-user="')[2].partition('"')[0] if page.status == 200 else ""


@dataclass
class Deployment:
    """The folder of its secrets and files, and the servers that replace those of the containers."""

    folder: Path
    op: DemoProvider
    certificate_authority: Path
    """Of the provider."""
    database_folder: Path
    """The folder of PostgreSQL's socket."""
    owner_url: str
    redis_port: int = field(default_factory=find_free_port)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        """The folder that `make_secrets.py` has written."""
        return self.folder / "secrets"

    def build_environment(self, process: Process, *, keep_hosts: bool = False, **variables: str) -> dict[str, str]:
        """Return the variables of a process, and nothing of the environment of the tests except the search path.

        keep_hosts: databases and broker have the addresses that they have in a container, which do not exist here.
        """
        declared: dict[str, str] = {}
        for name in process.env_files:
            path = DEPLOY / name
            declared |= read_variables(path if path.exists() else self.folder / name)
        image = {name: value for name, value in list_image_variables().items() if name != "PATH"}
        declared = image | declared | dict(process.environment)
        declared |= {
            "OIDC_ISSUER": self.op.issuer,
            "OIDC_CA_BUNDLE": str(self.certificate_authority),
            "OIDC_CLIENT_SECRET": SECRET,
            "PHI_TRUSTED_PROXIES": "127.0.0.1/32",
            **variables,
        }
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # Other checkouts may be installed in the environment of the tests.
        machine = {"PATH": path, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
        return machine | {name: self.translate(value, keep_hosts=keep_hosts) for name, value in declared.items()}

    def translate(self, text: str, *, keep_hosts: bool = False) -> str:
        """Replace the addresses and folders of the containers by those of this machine."""
        if not keep_hosts:
            socket = f"@/portal?host={self.database_folder}&connect_timeout=2"
            text = re.sub(r"@postgresql:5432/portal\?\S+", socket, text)
            text = text.replace("@redis:6379", f"@localhost:{self.redis_port}")
        text = text.replace("/run/secrets", str(self.secrets)).replace("/var/lib/portal", str(self.folder / "lib"))
        return text.replace("/tmp/portal", str(self.folder / "var"))

    def build_command(self, process: Process, port: int) -> list[str]:
        """Return the command of the process, with another address if it listens."""
        return [word.replace("0.0.0.0", "127.0.0.1").replace("8000", str(port)) for word in process.command]

    @contextmanager
    def running(self, process: Process, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a process of the manifests. Its port is in `ports`, its log in `<name>.log`."""
        port = self.ports[process.name] = find_free_port()
        command, environment = self.build_command(process, port), self.build_environment(process, **variables)
        with running(command, environment, self.get_log(process.name)) as child:
            yield child

    def run(self, process: Process, command: str = "", *, keep_hosts: bool = False, **variables: str) -> str:
        """Run the process, or a command with its variables, until it ends. Return its output.

        Raises: AssertionError with the output if it fails.
        """
        words = shlex.split(command) if command else [self.translate(word) for word in process.command]
        done = subprocess.run(
            words,
            cwd=EXAMPLE,
            env=self.build_environment(process, keep_hosts=keep_hosts, **variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def get_log(self, name: str) -> Path:
        """Return the path of the log of a process."""
        return self.folder / f"{name}.log"

    def query(self, statement: str, *parameters: Any) -> list[Any]:
        """Return the first column of the rows of a query, sent as the owner of the server."""
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            return [row[0] for row in connection.execute(statement, parameters)]

    def find_last_address(self) -> str:
        """Return the client's address in the newest event of a sign-in."""
        statement = "SELECT client_ip FROM phi_oidc_audit_auditevent WHERE action = 'login.succeeded' ORDER BY id DESC"
        return str(self.query(statement)[0])

    def create_browser(self, process: str = "portal") -> DeployedBrowser:
        """Return a browser that is connected to the portal as the proxy is."""
        return DeployedBrowser(BASE_URL, headers=dict(FROM_PROXY), address=f"127.0.0.1:{self.ports[process]}")

    def wait_until_healthy(self, process: str = "portal") -> None:
        """Wait until the health page says so, over http as the probe of Kubernetes requests it."""
        probe = DeployedBrowser(BASE_URL, address=f"127.0.0.1:{self.ports[process]}")
        wait_until(lambda: answers(probe), log=self.get_log(process))


@contextmanager
def provider_away(op: DemoProvider) -> Iterator[None]:
    """Stop the provider for the duration of the block."""
    op.stop()
    try:
        yield
    finally:
        op.start()


@contextmanager
def deploying(op: DemoProvider, certificate_authority: Path) -> Iterator[Deployment]:
    """Write the secrets, and run PostgreSQL with the owner of the database."""
    with tempfile.TemporaryDirectory(prefix="phi-deploy-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "pg_hba.conf").write_text(HBA)
        folder.chmod(0o755)
        (folder / "lib").mkdir()
        make = [sys.executable, DEPLOY / "make_secrets.py", folder / "secrets"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
        options = {"fsync": "off", "max_connections": "100", "hba_file": str(folder / "pg_hba.conf")}
        url = stack.enter_context(throw_away_server(options))
        password = read_variables(folder / "secrets" / "postgresql.env")["POSTGRES_PASSWORD"]
        with psycopg.connect(url, autocommit=True) as connection:
            # As the image of PostgreSQL does.
            connection.execute(f"CREATE ROLE owner SUPERUSER LOGIN PASSWORD '{password}'")
            connection.execute("CREATE DATABASE portal OWNER owner")
        head, _, socket_folder = url.partition("?host=")
        owner_url = f"{head.rpartition('/')[0]}/portal?host={socket_folder}"
        yield Deployment(
            folder=folder,
            op=op,
            certificate_authority=certificate_authority,
            database_folder=Path(socket_folder),
            owner_url=owner_url,
        )


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], log: Path, *, cwd: Path = EXAMPLE
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, and stop it at the end of the block: with SIGTERM, and with SIGKILL if that does not suffice."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def measure_memory(process: "subprocess.Popen[bytes]") -> int:
    """Return the bytes that a process and its children use, with shared pages counted once."""
    kibibytes = 0
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end meanwhile. The session is the fourth field after the name.
        with suppress(OSError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == process.pid:
                text = (folder / "smaps_rollup").read_text()
                kibibytes += int(text.partition("\nPss:")[2].split()[0])
    return kibibytes * 1024


def answers(browser: DeployedBrowser) -> bool:
    """Return whether the health page reports no fault."""
    try:
        return browser.get("/oidc/health/").status == 200
    except OSError:
        return False


def wait_until(holds: Any, *, log: Path) -> None:
    """Wait until the condition is true. Raises: TimeoutError with the log of the process."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > ends_at:
            raise TimeoutError(log.read_text(errors="replace")[-4000:])
        time.sleep(0.1)
