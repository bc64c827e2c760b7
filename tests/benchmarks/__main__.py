"""Measure, and say whether the aims are met: `make bench`, or `python -m tests.benchmarks [PART …]`.

Exits with 1 when one is not. Needs the extra `bench`. PostgreSQL is the server of DATABASE_URL, which must have fsync
on, or one of its own.
"""

import json
import os
import platform
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from tests.benchmarks.anomalies import report as of_watching
from tests.benchmarks.anomalies.rule_throughput import measure_judging
from tests.benchmarks.audit import report as of_audit
from tests.benchmarks.audit.contenders import COUNTED
from tests.benchmarks.audit.log_throughput import measure_trail
from tests.benchmarks.audit.write_throughput import measure_recording
from tests.benchmarks.claims import report as of_claims
from tests.benchmarks.claims.scrub_throughput import measure_scrubbing
from tests.benchmarks.dashboard import report as of_desk
from tests.benchmarks.dashboard.page_times import measure_looking
from tests.benchmarks.encryption import report as of_sealing
from tests.benchmarks.encryption.rotation_throughput import measure_sealing
from tests.benchmarks.leak_guard import report as of_guard
from tests.benchmarks.leak_guard.middleware_cost import measure_guarding
from tests.benchmarks.sessions import report as of_sessions
from tests.benchmarks.sessions.logout_time import measure_leaving
from tests.benchmarks.sessions.request_overhead import measure_requesting
from tests.benchmarks.sign_in import report as of_sign_in
from tests.benchmarks.sign_in.measurement import BEGIN, DURABLE, check_durable, measure
from tests.support.postgresql import given_url, throw_away_server

ROUND_TRIPS = (0.0, 0.02)
WRITERS = (8, 2)
OPTIONS = {**DURABLE, "max_connections": "200", "shared_buffers": "1GB", "max_wal_size": "4GB"}
"""Of a server of our own: as one would set them, and so that what was built does not lead to checkpoints later."""
RAN_WITH = {
    "sign-in": ("django", "mozilla-django-oidc", "social-auth-app-django", "social-auth-core", "psycopg", "urllib3"),
    "sessions": ("django", "mozilla-django-oidc", "django-auditlog", "psycopg", "urllib3"),
    "claims": ("django", "psycopg"),
    "guard": ("django",),
    "sealing": ("django", "cryptography", "psycopg"),
    "watching": ("django", "psycopg"),
    "desk": ("django", "psycopg"),
    "audit": ("django", "django-auditlog", "django-easy-audit", "django-pghistory", "psycopg"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a part has to say."""

    title: str
    table: str
    rows: Any
    missed: list[str]

    @classmethod
    def by(cls, telling: Any, results: Any, title: str) -> "Told":
        """Return what telling, the module of the part, says of its results."""
        return cls(
            title=title, table=telling.table(results), rows=telling.rows(results), missed=telling.missed(results)
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    parser = ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure of {', '.join(PARTS)}; or all")
    parser.add_argument("--rounds", type=int, default=200, help="sign-ins, and logouts, measured at each portal")
    parser.add_argument("--warm-up", type=int, default=50, help="of both, before those")
    parser.add_argument("--batches", type=int, default=400, help="turns of each stack of middleware, 20 requests each")
    parser.add_argument("--turns", type=int, default=6, help="turns of each contender that records events")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of such a turn")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="events that are sealed, and then verified")
    parser.add_argument(
        "--sealed", type=int, default=5_000_000, help="events of the log that --new ones come on top of"
    )
    parser.add_argument("--new", type=int, default=10_000, help="events that are sealed on top of those")
    parser.add_argument(
        "--claims", type=int, default=2_000_000, help="claims, of which half are due, and a tenth of them"
    )
    parser.add_argument("--texts", type=int, default=200_000, help="sealed texts that get another key")
    parser.add_argument("--watched", type=int, default=100_000, help="events that the anomaly rules see")
    parser.add_argument("--looked", type=int, default=2_000_000, help="events of the trail that pages show")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts).difference(PARTS):
        parser.error(f"There is no part {', '.join(sorted(unknown))}.")
    parts = {name: part for name, part in PARTS.items() if name in options.parts or not options.parts}
    with ExitStack() as stack:
        url = given_url(os.environ) or stack.enter_context(throw_away_server(options=OPTIONS))
        check_durable(url)
        told = {name: part(url, options) for name, part in parts.items()}
    _print(told, as_json=options.json)
    return 1 if any(each.missed for each in told.values()) else 0


def _print(told: Mapping[str, Told], *, as_json: bool) -> None:
    ran_with = {"python": platform.python_version()}
    ran_with |= {name: version(name) for part in told for name in RAN_WITH[part]}
    faults = [fault for each in told.values() for fault in each.missed]
    if as_json:
        measured = {name.replace("-", "_"): each.rows for name, each in told.items()}
        print(json.dumps({**measured, "missed": faults, "versions": ran_with}, indent=2))
        return
    print(f"{', '.join(map(' '.join, ran_with.items()))}.\n")
    for each in told.values():
        print(f"{each.title}\n\n{each.table}\n")
    print("\n".join(f"MISSED: {fault}." for fault in faults) if faults else "The aims are met.")


def _sign_in(url: str, options: Namespace) -> Told:
    results = measure(
        contenders=list(BEGIN),
        url=url,
        round_trips=ROUND_TRIPS,
        warm_up=options.warm_up,
        rounds=options.rounds,
        told=_say,
    )
    return Told.by(of_sign_in, results, "Sign-in, a returning person, the callback alone.")


def _sessions(url: str, options: Namespace) -> Told:
    results = of_sessions.Results(
        requests=measure_requesting(batches=options.batches),
        leaving=measure_leaving(
            url=url, round_trips=ROUND_TRIPS, warm_up=options.warm_up, rounds=options.rounds, told=_say
        ),
    )
    return Told.by(of_sessions, results, "A request of somebody who is signed in, beyond a bare one; and a logout.")


def _claims(url: str, options: Namespace) -> Told:
    scrubbing = measure_scrubbing(url=url, rows=options.claims, told=_say)
    return Told.by(of_claims, scrubbing, "Half of all claims are due, and are erased.")


def _guard(url: str, options: Namespace) -> Told:
    return Told.by(of_guard, measure_guarding(batches=options.batches), "The leak guard, beyond a bare request.")


def _sealing(url: str, options: Namespace) -> Told:
    results = measure_sealing(url=url, texts=options.texts, told=_say)
    return Told.by(of_sealing, results, "Every sealed text gets another key; and one call beside Fernet's.")


def _watching(url: str, options: Namespace) -> Told:
    results = measure_judging(url=url, events=options.watched, told=_say)
    return Told.by(of_watching, results, "The anomaly rules see a trail.")


def _desk(url: str, options: Namespace) -> Told:
    results = measure_looking(url=url, events=options.looked, rounds=20, told=_say)
    return Told.by(of_desk, results, f"Pages of the admin on a trail of {options.looked:,} events.")


def _audit(url: str, options: Namespace) -> Told:
    load = os.getloadavg()[0]
    recorded, _ = measure_recording(
        list(COUNTED), url=url, writers=WRITERS, rounds=options.turns, seconds=options.seconds, told=_say
    )
    trail = measure_trail(
        url=url, backlog=options.backlog, verifications=3, sealed=options.sealed, new=options.new, told=_say
    )
    results = of_audit.Results(recorded=recorded, trail=trail, cores=os.cpu_count() or 0, load=load)
    return Told.by(of_audit, results, f"The trail, on {results.cores} cores, with a load of {load:.1f} before.")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


PARTS: Mapping[str, Callable[[str, Namespace], Told]] = {
    "sign-in": _sign_in,
    "sessions": _sessions,
    "claims": _claims,
    "guard": _guard,
    "sealing": _sealing,
    "watching": _watching,
    "desk": _desk,
    "audit": _audit,
}

if __name__ == "__main__":
    sys.exit(main())
