"""Browsers that visit a portal: `python -m tests.benchmarks.deployment.browsers ADDRESS` serves turns until killed.

ADDRESS is the second one of the provider, at which people sign in. Each line of standard input is a Turn in JSON, and
each line of standard output its TurnResult. A browser is a thread with connections that it keeps for REQUESTS_KEPT
requests.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from http.cookies import SimpleCookie
from itertools import count
from secrets import token_hex
from urllib.parse import urlencode, urlsplit

BROWSERS = 8
"""Of each process."""
REQUESTS_KEPT = 20
"""On one connection. New ones spread the browsers over the processes of a portal again."""
MAX_STEPS = 8
REQUEST_SECONDS = 60
SECONDS_BETWEEN_PAGES = 30
HOME = "/home/"
BEGIN: Mapping[str, tuple[str, str]] = {
    "bare": ("GET", "/begin/"),
    "phi_oidc": ("GET", "/oidc/authenticate/"),
    "mozilla": ("GET", "/oidc/authenticate/"),
    "allauth": ("POST", "/accounts/oidc/bench/login/"),
    "social": ("POST", "/login/oidc/"),
}
"""The request that starts a sign-in at the portal of each contender, the bare view first."""
LEAVE = {"bare": "/leave/", "phi_oidc": "/oidc/logout/"}
Jar = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The visits of a turn at one portal."""

    contender: str
    address: str
    kind: str
    """`sign_in`, `page`, `logout`; or `visit`, which is a sign-in, two pages and a logout."""
    people: list[int]
    passes: int = 1
    """Number of visits of each person."""
    first_pass: int = 0
    """The number of earlier passes: the clock of the portal has moved by SECONDS_BETWEEN_PAGES for each."""
    per_second: float = 0.0
    """Start the visits at this rate, whether or not others have ended; 0: as fast as the browsers can."""


@dataclass(slots=True, kw_only=True)
class TurnResult:
    """What happened. Times are those of the monotonic clock, which all processes share, in seconds."""

    started_at: float = 0.0
    ended_at: float = 0.0
    seconds: list[float] = field(default_factory=list)
    """Of each visit without an error, since it was due."""
    errors: list[str] = field(default_factory=list)


class VisitError(Exception):
    """The portal answered something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A response."""

    status: int
    location: str
    body: bytes


class Connections:
    """The connections of a browser to the portal and to the provider."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._connections = {address: HTTPConnection(address, timeout=REQUEST_SECONDS) for address in addresses}
        self._request_counts = dict.fromkeys(addresses, 0)

    def request(self, address: str, method: str, target: str, jar: Jar, headers: Mapping[str, str]) -> Page:
        """Send a request with the cookies of the jar, which also receives those of the response."""
        connection = self._connections[address]
        if self._request_counts[address] % REQUESTS_KEPT == 0:
            connection.close()
        self._request_counts[address] += 1
        sent, body = dict(headers), None
        if jar:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        if method == "POST":
            body = urlencode({"csrfmiddlewaretoken": jar["csrftoken"]})
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, target, body, sent)
        response = connection.getresponse()
        content = response.read()
        for line in response.headers.get_all("Set-Cookie", []):
            jar.update({name: morsel.value for name, morsel in SimpleCookie(line).items()})
        return Page(status=response.status, location=response.headers.get("Location", ""), body=content)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


class Browsers:
    """The browsers of one process, and the cookies of the people who signed in."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._jars: dict[tuple[str, int], Jar] = {}

    def run(self, turn: Turn) -> TurnResult:
        """Make the visits of the turn."""
        result, numbers, lock = TurnResult(started_at=time.monotonic()), count(), threading.Lock()
        total = turn.passes * len(turn.people)

        def due_visits() -> Iterator[tuple[int, float]]:
            while True:
                with lock:
                    number = next(numbers)
                if number >= total:
                    return
                due_at = result.started_at + number / turn.per_second if turn.per_second else time.monotonic()
                time.sleep(max(0.0, due_at - time.monotonic()))
                yield number, due_at

        def browse() -> None:
            with closing(Connections((turn.address, self._provider))) as connections:
                for number, due_at in due_visits():
                    try:
                        self._visit(turn, number, connections)
                    except (HTTPException, OSError, VisitError) as error:
                        result.errors.append(f"{turn.kind} at {turn.contender}: {error!r}"[:500])
                    else:
                        result.seconds.append(time.monotonic() - due_at)

        threads = [threading.Thread(target=browse) for _ in range(BROWSERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        result.ended_at = time.monotonic()
        return result

    def _visit(self, turn: Turn, number: int, connections: Connections) -> None:
        earlier, index = divmod(number, len(turn.people))
        person = turn.people[index]
        headers = {"X-Seconds-Later": str(SECONDS_BETWEEN_PAGES * (turn.first_pass + earlier))}
        request = partial(connections.request, turn.address)
        jar = self._jars.setdefault((turn.address, person), {})
        if turn.kind in ("sign_in", "visit"):
            # A browser that the portal does not know.
            jar.clear()
            self._sign_in(turn, person, connections, jar)
        if turn.kind == "page":
            _expect_user(request("GET", HOME, jar, headers))
        if turn.kind == "visit":
            for _ in range(2):
                _expect_user(request("GET", HOME, jar, {}))
        if turn.kind in ("logout", "visit"):
            jar["csrftoken"] = token_hex(16)
            page = request("POST", LEAVE[turn.contender], jar, {})
            if page.status != 302:
                raise VisitError(page)
        if turn.kind == "signed_out" and (page := request("GET", HOME, jar, {})).body:
            raise VisitError(page)

    def _sign_in(self, turn: Turn, person: int, connections: Connections, jar: Jar) -> None:
        method, target = BEGIN[turn.contender]
        if method == "POST":
            jar["csrftoken"] = token_hex(16)
        page = connections.request(turn.address, method, target, jar, {})
        for _ in range(MAX_STEPS):
            if page.status != 302:
                break
            parts = urlsplit(page.location)
            target = f"{parts.path}?{parts.query}"
            if parts.netloc in ("", turn.address):
                page = connections.request(turn.address, "GET", target, jar, {})
            else:
                page = connections.request(self._provider, "GET", f"{target}&person={person}", {}, {})
        _expect_user(page)


def _expect_user(page: Page) -> None:
    """Raises: VisitError unless it is the page of a user who is signed in."""
    if page.status != 200 or not page.body.isdigit():
        raise VisitError(page)


def serve(browsers: Browsers, write: Callable[[str], object]) -> None:
    """Run the turns on standard input until it ends."""
    for line in sys.stdin:
        write(json.dumps(asdict(browsers.run(Turn(**json.loads(line))))))


if __name__ == "__main__":
    serve(Browsers(sys.argv[1]), partial(print, flush=True))
