"""The portals under gunicorn, the provider, Redis and the browsers, and the resources that their processes use."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import mean

from tests.benchmarks.audit.processes import process as piped_process
from tests.benchmarks.deployment.browsers import HOME, Turn, TurnResult
from tests.benchmarks.sign_in.measurement import OP, _database, _first_line, _process
from tests.support.tls import create_certificate_authority

WORKERS, THREADS = 2, 4
"""Of gunicorn, for each portal."""
BROWSER_PROCESSES = 2
START_SECONDS = 60
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Portal:
    """A running portal."""

    contender: str
    address: str
    database: str
    pid: int
    environment: Mapping[str, str]

    def cpu_seconds(self) -> float:
        """Return the CPU time of gunicorn and its workers since they started. Spec: proc(5)."""
        return sum(map(cpu_seconds_of, (self.pid, *children_of(self.pid))))

    def worker_bytes(self) -> float:
        """Return the memory of a worker, the mean of both."""
        return mean(map(memory_of, children_of(self.pid)))


class Load:
    """The browsers, in processes of their own."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def run(self, portal: Portal, kind: str, people: Sequence[int], **options: float) -> TurnResult:
        """Run a turn with all browsers; `per_second` of the options is that of all of them."""
        number = len(self._processes)
        if "per_second" in options:
            options["per_second"] /= number
        for index, process in enumerate(self._processes):
            turn = {"contender": portal.contender, "address": portal.address, "kind": kind, **options}
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(Turn(people=list(people[index::number]), **turn))) + "\n")
            process.stdin.flush()
        results = [TurnResult(**json.loads(_first_line(process))) for process in self._processes]
        return TurnResult(
            started_at=min(result.started_at for result in results),
            ended_at=max(result.ended_at for result in results),
            seconds=[seconds for result in results for seconds in result.seconds],
            errors=[error for result in results for error in result.errors],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Everything that runs."""

    op: OP
    portals: list[Portal]
    load: Load


@contextmanager
def deployed(contenders: Sequence[str], *, url: str, redis_url: str = "") -> Iterator[Deployment]:
    """Run the provider, the browsers, and a portal with a database of its own for each contender.

    url: of the PostgreSQL server. redis_url: where sessions are stored; empty: in the database.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phi-oidc-bench-")))
        authority = create_certificate_authority(directory, "bench")
        certificate = authority.create_server_certificate("127.0.0.1")
        provider = stack.enter_context(_process("tests.benchmarks.sign_in.provider", str(certificate)))
        for_portals, for_browsers = _first_line(provider).split()
        op = OP(f"https://127.0.0.1:{for_portals}", int(for_browsers))
        browsers = [
            stack.enter_context(piped_process("tests.benchmarks.deployment.browsers", f"127.0.0.1:{int(for_browsers)}"))
            for _ in range(BROWSER_PROCESSES)
        ]
        portals = []
        for contender in contenders:
            environment = {
                "DJANGO_SETTINGS_MODULE": "tests.benchmarks.deployment.settings",
                "BENCH_CONTENDER": contender,
                "BENCH_DATABASE_URL": url,
                "BENCH_DATABASE_NAME": stack.enter_context(_database(url)),
                "BENCH_ISSUER": op.issuer,
                "BENCH_CA_BUNDLE": authority.certificate_path,
                "BENCH_REDIS": redis_url,
            }
            portals.append(stack.enter_context(_gunicorn(environment)))
        yield Deployment(op=op, portals=portals, load=Load(browsers))


@contextmanager
def redis_server() -> Iterator[str]:
    """Run Redis in memory on a socket, and yield its URL. Raises: FileNotFoundError if it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("No redis-server on PATH, which the sessions in a cache need.")
    with tempfile.TemporaryDirectory(prefix="phi-oidc-redis-") as directory:
        path = Path(directory) / "redis.socket"
        command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                ends_at = time.monotonic() + START_SECONDS
                while not path.exists() and time.monotonic() < ends_at:
                    time.sleep(0.05)
                yield f"unix://{path}"
            finally:
                process.kill()


@contextmanager
def _gunicorn(environment: Mapping[str, str]) -> Iterator[Portal]:
    variables = {**os.environ, **environment}
    migrate = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, env=variables, check=True, timeout=START_SECONDS)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--log-level", "warning"]
        command += ["--workers", str(WORKERS), "--threads", str(THREADS), "--no-control-socket"]
        command += ["tests.benchmarks.deployment.wsgi:application"]
        with subprocess.Popen(command, env=variables, pass_fds=[listener.fileno()]) as gunicorn:
            try:
                address = f"127.0.0.1:{listener.getsockname()[1]}"
                with closing(HTTPConnection(address, timeout=START_SECONDS)) as connection:
                    connection.request("GET", HOME, headers={"Connection": "close"})
                    assert connection.getresponse().status == 200, environment["BENCH_CONTENDER"]
                yield Portal(
                    contender=environment["BENCH_CONTENDER"],
                    address=address,
                    database=environment["BENCH_DATABASE_NAME"],
                    pid=gunicorn.pid,
                    environment=variables,
                )
            finally:
                gunicorn.terminate()
                gunicorn.wait(timeout=START_SECONDS)


def children_of(pid: int) -> list[int]:
    """Return the processes that the process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds_of(pid: int) -> float:
    """Return the user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_of(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024
