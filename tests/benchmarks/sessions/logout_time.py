"""Cost of a logout with django_phi_oidc, and of a minimal one: the logout of Django and two POST requests."""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psycopg

from tests.benchmarks.sign_in.measurement import BEGIN, OP, Portal, Sample, racing
from tests.benchmarks.sign_in.measurement import _ask as get
from tests.support.http_browser import Browser

LOGOUT_PATHS = {"bare": "/leave/", "phi_oidc": "/oidc/logout/"}


@dataclass(slots=True, kw_only=True)
class LogoutResult:
    """The costs of the logouts of one contender at one round-trip time."""

    samples: list[Sample] = field(default_factory=list)
    wal: list[int] = field(default_factory=list)
    """Bytes that the server wrote to its log for each of them."""
    statements: int = 0
    """SQL statements of an additional logout in all databases, without transaction control."""
    commits: int = 0
    """Commits of the same logout that waited for the disk."""
    events: int = 0
    """Rows of the same logout in the audit log."""

    def compute_medians(self) -> dict[str, float]:
        """Return the medians: times in milliseconds, WAL in bytes."""
        return {
            "wall": median(sample.wall for sample in self.samples) * 1000,
            "cpu": median(sample.cpu for sample in self.samples) * 1000,
            "wal": median(self.wal),
        }


def measure_logout(
    *, url: str, round_trips: Sequence[float], warm_up: int, rounds: int, log: Callable[[str], None]
) -> dict[float, dict[str, LogoutResult]]:
    """Return the results by round-trip time in seconds and by contender. url: of the PostgreSQL server."""
    results: dict[float, dict[str, LogoutResult]] = {}
    with psycopg.connect(url, autocommit=True) as server, racing(list(LOGOUT_PATHS), url=url) as (op, portals):
        for round_trip in round_trips:
            op.set_round_trip(round_trip)
            results[round_trip] = of = {portal.contender: LogoutResult() for portal in portals}
            for number in range(-warm_up, rounds):
                for portal in portals if number % 2 else portals[::-1]:
                    measured, wal = _log_out(portal, op, server)
                    if number >= 0:
                        of[portal.contender].samples.append(Sample(**measured))
                        of[portal.contender].wal.append(wal)
            for portal in portals:
                before = _count_events(url, portal)
                counted, _ = _log_out(portal, op, server, counting=True)
                result = of[portal.contender]
                result.statements, result.commits = counted["statements"], counted["commits"]
                # The sign-in before it has as many events as the next one.
                between = _count_events(url, portal)
                portal.sign_in(op)
                result.events = 2 * between - before - _count_events(url, portal)
            log(f"{rounds} logouts each at {round_trip * 1000:.0f} ms, after {warm_up}.")
    return results


def _log_out(
    portal: Portal, op: OP, server: psycopg.Connection, *, counting: bool = False
) -> tuple[dict[str, Any], int]:
    """Sign in, then sign out; return the cost of the logout, and the bytes of WAL that the server wrote for it."""
    browser = Browser(portal.base)
    page = browser.get(op.authorize(BEGIN[portal.contender](browser).location))
    assert (page.status, urlsplit(page.location).path) == (302, "/home/"), (portal.contender, page)
    browser.cookies["csrftoken"] = secrets.token_hex(16)
    browser.headers = {"X-Count": "1"} if counting else {}
    (requests, connections), wal = op.counts(), _read_wal(server)
    response = browser.post(LOGOUT_PATHS[portal.contender])
    wal = _read_wal(server) - wal
    assert response.status == 302, (portal.contender, response)
    measured = json.loads(get(urlsplit(portal.base).netloc, "/measured").body)
    after = op.counts()
    assert not browser.get("/home/").body, f"{portal.contender} did not sign out"
    measured |= {"requests": after[0] - requests, "connections": after[1] - connections}
    assert measured["requests"] == 2, (portal.contender, measured)
    return measured, wal


def _read_wal(server: psycopg.Connection) -> int:
    """Return the position in the log of the server: no other process writes to it."""
    row = server.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])


def _count_events(url: str, portal: Portal) -> int:
    """Return the number of rows in the audit log of a portal."""
    with psycopg.connect(url, dbname=portal.database_name) as database:
        table = database.execute("SELECT to_regclass('phi_oidc_audit_auditevent')").fetchone()
        row = (
            database.execute("SELECT count(*) FROM phi_oidc_audit_auditevent").fetchone() if table != (None,) else None
        )
        return int(row[0]) if row else 0
