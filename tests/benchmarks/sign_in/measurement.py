"""The measurement: starts the provider and the portals, and signs in at each portal in turns."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psycopg
from psycopg import sql

from tests.support.http_browser import Browser, PortalResponse
from tests.support.tls import create_certificate_authority

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


def _begin_by_post(browser: Browser) -> PortalResponse:
    browser.cookies["csrftoken"] = secrets.token_hex(16)
    return browser.post("/login/oidc/")


BEGIN: Mapping[str, Callable[[Browser], PortalResponse]] = {
    "bare": lambda browser: browser.get("/begin/"),
    "phi_oidc": lambda browser: browser.get("/oidc/authenticate/"),
    "phi_oidc_dpop": lambda browser: browser.get("/oidc/authenticate/"),
    "phi_oidc_jwe": lambda browser: browser.get("/oidc/authenticate/"),
    "mozilla": lambda browser: browser.get("/oidc/authenticate/"),
    "social": _begin_by_post,
}
"""How a sign-in starts at the portal of each contender, the bare view first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The cost of one sign-in. Times in seconds."""

    wall: float
    cpu: float
    requests: int
    """To the provider."""
    connections: int
    """Opened to the provider."""


@dataclass(slots=True, kw_only=True)
class Result:
    """The costs of the sign-ins of one contender at one round-trip time."""

    samples: list[Sample] = field(default_factory=list)
    statements: int = 0
    """SQL statements of an additional sign-in in all databases, without transaction control."""
    commits: int = 0
    """Commits of the same sign-in that waited for the disk."""
    written: list[str] = field(default_factory=list)
    """The tables written to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessResponse:
    """The response of a measured process."""

    headers: Message
    body: bytes


class OP:
    """The minimal provider, controlled through its second port."""

    def __init__(self, issuer: str, port: int) -> None:
        self.issuer = issuer
        self._port = port

    def authorize(self, location: str) -> str:
        """Return the callback URL that the provider redirects to."""
        return self._ask(f"/authorize?{urlsplit(location).query}").headers["Location"] or ""

    def set_round_trip(self, seconds: float) -> None:
        """Set the duration of each round trip to the provider."""
        self._ask(f"/round-trip?{urlencode({'seconds': seconds})}")

    def counts(self) -> tuple[int, int]:
        """Return the numbers of requests and connections of the portals."""
        counts = json.loads(self._ask("/counts").body)
        return counts["requests"], counts["connections"]

    def _ask(self, target: str) -> ProcessResponse:
        return _ask(f"127.0.0.1:{self._port}", target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Portal:
    """A running portal."""

    contender: str
    base: str
    database: str
    """The name of its database."""

    def sign_in(self, op: OP, *, counting: bool = False) -> dict[str, Any]:
        """Sign in with a new browser, and return the cost of the callback."""
        browser = Browser(self.base)
        begin = BEGIN[self.contender](browser)
        assert begin.status == 302, (self.contender, begin)
        callback = op.authorize(begin.location)
        requests, connections = op.counts()
        browser.headers = {"X-Count": "1"} if counting else {}
        page = browser.get(callback)
        assert (page.status, urlsplit(page.location).path) == (302, "/home/"), (self.contender, page)
        measured = json.loads(_ask(urlsplit(self.base).netloc, "/measured").body)
        after = op.counts()
        measured |= {"requests": after[0] - requests, "connections": after[1] - connections}
        if counting:
            assert browser.get("/home/").body.isdecimal(), f"{self.contender} did not sign in"
        return measured


def measure(
    *,
    contenders: Sequence[str],
    url: str,
    round_trips: Sequence[float],
    warm_up: int,
    rounds: int,
    log: Callable[[str], None],
) -> dict[float, dict[str, Result]]:
    """Return the results by round-trip time in seconds and by contender. url: of the PostgreSQL server.

    Each round has one sign-in per portal and starts with another portal, so that other load affects all alike. log:
    receives progress lines.
    """
    results: dict[float, dict[str, Result]] = {}
    with racing(contenders, url=url) as (op, portals):
        for round_trip in round_trips:
            op.set_round_trip(round_trip)
            results[round_trip] = {contender: Result() for contender in contenders}
            for number in range(-warm_up, rounds):
                shift = number % len(portals)
                for portal in (*portals[shift:], *portals[:shift]):
                    measured = portal.sign_in(op)
                    if number >= 0:
                        results[round_trip][portal.contender].samples.append(Sample(**measured))
            for portal in portals:
                counted = portal.sign_in(op, counting=True)
                for name in ("statements", "commits", "written"):
                    setattr(results[round_trip][portal.contender], name, counted[name])
            log(f"{rounds} sign-ins each at {round_trip * 1000:.0f} ms, after {warm_up}.")
    return results


def check_durable(url: str) -> None:
    """Raises: ValueError if the server may lose commits, which would be faster and not comparable."""
    with psycopg.connect(url) as server:
        for option, expected in DURABLE.items():
            row = server.execute(sql.SQL("SHOW {}").format(sql.Identifier(option))).fetchone()
            if row != (expected,):
                raise ValueError(f"{option} is {row and row[0]} on this server, but must be {expected}.")


@contextmanager
def racing(contenders: Sequence[str], *, url: str) -> Iterator[tuple[OP, list[Portal]]]:
    """Run the provider and a portal with a separate database for each contender; stop them at the end."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phi-oidc-bench-")))
        authority = create_certificate_authority(directory, "bench")
        certificate = authority.create_server_certificate("127.0.0.1")
        provider = stack.enter_context(_process("tests.benchmarks.sign_in.provider", str(certificate)))
        for_portals, for_measuring = _first_line(provider).split()
        op = OP(f"https://127.0.0.1:{for_portals}", int(for_measuring))
        processes, databases = [], [stack.enter_context(_database(url)) for _ in contenders]
        for contender, database in zip(contenders, databases, strict=True):
            environment = {
                "DJANGO_SETTINGS_MODULE": "tests.benchmarks.sign_in.settings",
                "BENCH_CONTENDER": contender,
                "BENCH_DATABASE_URL": url,
                "BENCH_DATABASE_NAME": database,
                "BENCH_ISSUER": op.issuer,
                "BENCH_CA_BUNDLE": authority.certificate_path,
            }
            processes.append(stack.enter_context(_process("tests.benchmarks.sign_in.portal", **environment)))
        yield (
            op,
            [
                Portal(contender=contender, base=f"http://127.0.0.1:{int(_first_line(process))}", database=database)
                for contender, process, database in zip(contenders, processes, databases, strict=True)
            ],
        )


@contextmanager
def _database(url: str) -> Iterator[str]:
    """Yield the name of a new, empty database."""
    name = f"phi_bench_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield name
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _process(module: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _ask(netloc: str, target: str) -> ProcessResponse:
    with closing(HTTPConnection(netloc, timeout=60)) as connection:
        connection.request("GET", target)
        response = connection.getresponse()
        return ProcessResponse(headers=response.headers, body=response.read())
