"""Starts of web processes in turns, and the memory of a gunicorn worker before and after sign-ins."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.audit.processes import database, read_line
from tests.benchmarks.sign_in.measurement import BEGIN, OP
from tests.benchmarks.sign_in.provider import PERSON
from tests.benchmarks.startup.process_memory import get_resident_mb
from tests.support.http_browser import Browser
from tests.support.installed_apps import CONTRIB_APPS
from tests.support.tls import create_certificate_authority

STARTED = ("bare", "phi_oidc", "mozilla", "allauth")
SIGNED_IN = ("bare", "phi_oidc", "mozilla")
ADMIN = " + admin"
"""The same contender in a project with Django's admin."""
REQUIRED_APPS = {
    "django_phi_oidc.contrib.adoption": ["django_phi_oidc.contrib.doctor"],
    "django_phi_oidc.contrib.invitations": ["django_phi_oidc.contrib.subject_links"],
    "django_phi_oidc.contrib.scim": ["django_phi_oidc.contrib.role_mapping"],
}
"""They are installed, and measured, with the app that requires them."""
APPS = {f"phi_oidc + {name.rpartition('.')[2]}": [*REQUIRED_APPS.get(name, []), name] for name in CONTRIB_APPS}
"""The core with one app, and what is installed for it."""
COMPARED = (*STARTED, *(f"{contender}{ADMIN}" for contender in STARTED[:2]), *APPS)
THREADS = 8
START_SECONDS = 60


@dataclass(slots=True, kw_only=True)
class StartCost:
    """The starts of a contender: milliseconds of each, and megabytes and number of modules of the last one."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    resident_mb: float = 0
    modules: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMemory:
    """The megabytes of a gunicorn worker after its first page, and after the sign-ins."""

    first_page: float
    signed_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    starts: Mapping[str, StartCost]
    workers: Mapping[str, WorkerMemory]


def start_process(contender: str, *, url: str = "postgresql://127.0.0.1/portal", **environment: str) -> dict[str, Any]:
    """Start a web process that loads the application and the URLs, and return its cost and its modules."""
    name, _, _ = contender.partition(" + ")
    process_environment = _environment(name, url)
    if contender.endswith(ADMIN):
        process_environment["BENCH_ADMIN"] = "1"
    process_environment["BENCH_APPS"] = " ".join(APPS.get(contender, []))
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.startup.start"],
        env={**process_environment, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=START_SECONDS,
    )
    return dict(json.loads(run.stdout))


def measure_startup(*, url: str, rounds: int, sign_ins: int, log: Callable[[str], None]) -> Results:
    """Return the costs of the starts and the memory of the workers. url: of the PostgreSQL server."""
    starts = {contender: StartCost() for contender in COMPARED}
    with tempfile.TemporaryDirectory() as cache:
        # The first round compiles the modules, and is not counted.
        for number in range(rounds + 1):
            shift = number % len(COMPARED)
            for contender in (*COMPARED[shift:], *COMPARED[:shift]):
                measured = start_process(contender, url=url, PYTHONPYCACHEPREFIX=cache)
                cost = starts[contender]
                if number:
                    cost.wall_ms.append(measured["wall_ms"])
                    cost.cpu_ms.append(measured["cpu_ms"])
                cost.resident_mb, cost.modules = measured["resident_mb"], len(measured["modules"])
    log(f"{rounds} starts each.")
    with _provider() as (op, ca_bundle):
        workers = {contender: _measure_worker(contender, url, op, ca_bundle, sign_ins) for contender in SIGNED_IN}
    log(f"{sign_ins} sign-ins each.")
    return Results(starts=starts, workers=workers)


def _environment(contender: str, url: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **environment,
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.startup.settings",
        "BENCH_CONTENDER": contender,
        "BENCH_DATABASE_URL": url,
    }


@contextmanager
def _provider() -> Iterator[tuple[OP, str]]:
    """Run the provider of the sign-in benchmark, and yield it and the file of its certificate authority."""
    with tempfile.TemporaryDirectory(prefix="phi-oidc-bench-") as directory:
        authority = create_certificate_authority(Path(directory), "bench")
        certificate = authority.create_server_certificate("127.0.0.1")
        command = [sys.executable, "-m", "tests.benchmarks.sign_in.provider", str(certificate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                for_portals, for_measuring = read_line(process).split()
                yield OP(f"https://127.0.0.1:{for_portals}", int(for_measuring)), str(authority.certificate_path)
            finally:
                process.kill()


def _measure_worker(contender: str, url: str, op: OP, ca_bundle: str, sign_ins: int) -> WorkerMemory:
    """Run gunicorn with one worker, and sign in at it with new browsers."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        environment = {
            **_environment(contender, url),
            "BENCH_DATABASE_NAME": stack.enter_context(database(url)),
            "BENCH_URLCONF": f"tests.benchmarks.sign_in.urls.{contender}",
            "BENCH_ISSUER": op.issuer,
            "BENCH_CA_BUNDLE": ca_bundle,
        }
        # The other contenders find the user by `sub` or e-mail address.
        names = ["--username", PERSON["sub"], "--email", PERSON["email"]]
        for command in (["migrate", "--verbosity", "0"], ["createsuperuser", "--noinput", *names]):
            program = [sys.executable, "-m", "django", *command, "--skip-checks"]
            subprocess.run(program, env=environment, check=True, timeout=START_SECONDS, stdout=subprocess.DEVNULL)
        gunicorn = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--log-level", "warning"),
                *("--workers", "1", "--threads", str(THREADS), "django.core.wsgi:get_wsgi_application()"),
            ],
            env=environment,
            pass_fds=[listener.fileno()],
        )
        stack.callback(gunicorn.wait, timeout=START_SECONDS)
        stack.callback(gunicorn.terminate)
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert Browser(base).get("/home/").status == 200
        worker = _find_worker(gunicorn.pid)
        first_page = get_resident_mb(worker)
        for _ in range(sign_ins):
            browser = Browser(base)
            page = browser.get(op.authorize(BEGIN[contender](browser).location))
            assert page.location.endswith("/home/"), (contender, page)
        return WorkerMemory(first_page=first_page, signed_in=get_resident_mb(worker))


def _find_worker(pid: int) -> int:
    """Return the id of the only child of a process. Spec: proc_pid_task(5)."""
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(worker)
