"""Run the benchmarks and compare them with their goals: `make bench`, or `python -m tests.benchmarks [PART …]`.

A name selects the parts that begin with it, too: `log` is the three parts of the audit log.
Exits with 1 if a goal is missed. Requires the extra `bench`. Uses the PostgreSQL server of DATABASE_URL, which must
have fsync on, or a temporary one.
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

from tests.benchmarks.anomalies import report as anomaly_report
from tests.benchmarks.anomalies.rule_throughput import measure_rules
from tests.benchmarks.audit import report as audit_report
from tests.benchmarks.audit.contenders import COUNTED, OWN
from tests.benchmarks.audit.log_throughput import measure_log
from tests.benchmarks.audit.write_throughput import Rates, Writers, measure_writes
from tests.benchmarks.claims import report as claims_report
from tests.benchmarks.claims.scrub_throughput import measure_scrub
from tests.benchmarks.dashboard import report as dashboard_report
from tests.benchmarks.dashboard.page_times import measure_pages as measure_admin_pages
from tests.benchmarks.deployment import report as deployment_report
from tests.benchmarks.deployment import sustained
from tests.benchmarks.deployment.throughput import measure_deployment
from tests.benchmarks.encryption import report as encryption_report
from tests.benchmarks.encryption.rotation_throughput import measure_encryption
from tests.benchmarks.growth import report as growth_report
from tests.benchmarks.growth.work_times import measure_growth
from tests.benchmarks.leak_guard import report as leak_guard_report
from tests.benchmarks.leak_guard.middleware_cost import measure_leak_guard
from tests.benchmarks.leavers import report as leavers_report
from tests.benchmarks.leavers.latency import measure_leavers
from tests.benchmarks.log_size import report as log_size_report
from tests.benchmarks.log_size.measurement import build_logs, measure_sizes
from tests.benchmarks.outage import report as outage_report
from tests.benchmarks.outage.page_load import measure_outage
from tests.benchmarks.sessions import report as sessions_report
from tests.benchmarks.sessions.logout_time import measure_logout
from tests.benchmarks.sessions.page_cost import measure_pages
from tests.benchmarks.sessions.request_overhead import measure_requests
from tests.benchmarks.sign_in import report as sign_in_report
from tests.benchmarks.sign_in.measurement import BEGIN, DURABLE, check_durable, measure
from tests.benchmarks.startup import report as startup_report
from tests.benchmarks.startup.process_costs import measure_startup
from tests.benchmarks.sweep import report as sweep_report
from tests.benchmarks.sweep.rates import measure_sweep
from tests.benchmarks.witnesses import report as witnesses_report
from tests.benchmarks.witnesses.costs import measure_witnesses
from tests.support.postgresql import given_url, throw_away_server

ROUND_TRIPS = (0.0, 0.02)
WRITERS = ((8, 1), (2, 1))
THREADED_WRITERS = ((2, 4), (1, 8))
"""Processes and threads: as under gunicorn, and without other processes."""
OPTIONS = {
    **DURABLE,
    **{"max_connections": "200", "shared_buffers": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "1h"},
}
"""Options of a temporary server: typical ones, and large enough to avoid checkpoints during a measurement."""
PACKAGES = {
    "sign-in": ("django", "mozilla-django-oidc", "social-auth-app-django", "social-auth-core", "psycopg", "urllib3"),
    "sessions": ("django", "mozilla-django-oidc", "django-auditlog", "psycopg", "urllib3"),
    "sweep": ("django", "psycopg", "urllib3"),
    "leavers": ("django", "psycopg", "scim2-models", "urllib3"),
    "claims": ("django", "psycopg"),
    "guard": ("django",),
    "sealing": ("django", "cryptography", "psycopg"),
    "watching": ("django", "psycopg"),
    "dashboard": ("django", "psycopg"),
    "growth": ("django", "psycopg"),
    "outage": ("django", "gunicorn", "psycopg", "urllib3"),
    "startup": ("django", "django-allauth", "gunicorn", "mozilla-django-oidc", "psycopg", "pyjwt", "urllib3"),
    "deployment": (
        *("django", "gunicorn", "mozilla-django-oidc", "django-allauth", "social-auth-app-django", "social-auth-core"),
        *("psycopg", "urllib3"),
    ),
    "log-throughput": ("django", "django-auditlog", "django-easy-audit", "django-pghistory", "psycopg"),
    "log-witnesses": ("django", "cryptography", "psycopg", "urllib3"),
    "log-size": ("django", "cryptography", "psycopg"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """The report of a part."""

    title: str
    table: str
    rows: Any
    missed: list[str]

    @classmethod
    def create(cls, report: Any, results: Any, title: str) -> "PartReport":
        """Return the report of results. report: the report module of the part."""
        return cls(title=title, table=report.table(results), rows=report.rows(results), missed=report.missed(results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and return the exit status."""
    parser = ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"parts to measure, of {', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=200, help="measured sign-ins, logouts and sessions of pages")
    parser.add_argument("--warm-up", type=int, default=50, help="sign-ins and logouts before the measurement")
    parser.add_argument("--batches", type=int, default=400, help="turns of each middleware stack, 20 requests each")
    parser.add_argument(
        "--turns", type=int, default=6, help="turns of each contender that records events, and of each deployment"
    )
    parser.add_argument("--visits", type=int, default=120, help="visits of each turn of a deployment")
    parser.add_argument(
        "--sustained",
        type=float,
        nargs="?",
        const=30.0,
        metavar="MINUTES",
        help="measure the deployment of this app for so long at 70 %% of its capacity instead; without a number: 30",
    )
    parser.add_argument("--seconds", type=float, default=1.5, help="length of such a turn")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="events to seal and verify")
    parser.add_argument(
        "--sizes", type=_parse_sizes, default="1000000,10000000,20000000", help="events of the logs, ascending"
    )
    parser.add_argument("--new", type=int, default=100_000, help="events to seal and to verify in each of these logs")
    parser.add_argument("--day", type=int, default=2_600_000, help="events of a day, to verify in the largest log")
    parser.add_argument("--converted", type=int, default=5_000_000, help="events of the log that gets partitions")
    parser.add_argument("--proofs", type=int, default=1_000, help="proofs in each log")
    parser.add_argument(
        "--kept-logs",
        choices=("build", "measure"),
        help="build the logs of --sizes on the server of DATABASE_URL and keep them, or measure those",
    )
    parser.add_argument("--claims", type=int, default=2_000_000, help="claims, half of them due; also a tenth of that")
    parser.add_argument("--sweep", type=int, default=20, help="seconds of each revocation sweep")
    parser.add_argument("--ended", type=int, default=78_000, help="sessions for the bulk end")
    parser.add_argument("--provisioned", type=int, default=10_000, help="people for the leavers")
    parser.add_argument("--leavers", type=int, default=1_000, help="people that leave, at each round trip")
    parser.add_argument("--texts", type=int, default=200_000, help="encrypted texts for the key rotation")
    parser.add_argument("--watched", type=int, default=100_000, help="events for the anomaly rules")
    parser.add_argument("--looked", type=int, default=2_000_000, help="events of the audit log for the pages")
    parser.add_argument("--listed", type=int, default=2_000_000, help="sessions, revocations and claims of the lists")
    parser.add_argument("--people", type=int, default=1_000_000, help="people; as many live and ended sessions each")
    parser.add_argument("--many", type=int, default=10_000, help="sessions of a back-channel logout, and lost ones")
    parser.add_argument(
        "--outage", type=int, default=15, help="seconds with a slow endpoint, and without, of each case"
    )
    parser.add_argument("--starts", type=int, default=15, help="starts of a web process of each contender")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    groups = {name.partition("-")[0] for name in PARTS}
    if unknown := set(options.parts).difference(PARTS, groups):
        parser.error(f"There is no part {', '.join(sorted(unknown))}.")
    chosen = set(options.parts or PARTS)
    parts = {name: part for name, part in PARTS.items() if chosen & {name, name.partition("-")[0]}}
    with ExitStack() as stack:
        url = given_url(os.environ) or stack.enter_context(throw_away_server(options=OPTIONS))
        check_durable(url)
        if options.kept_logs == "build":
            build_logs(url=url, sizes=options.sizes, log=_log)
            return 0
        reports = {name: part(url, options) for name, part in parts.items()}
    _print(reports, as_json=options.json)
    return 1 if any(report.missed for report in reports.values()) else 0


def _print(reports: Mapping[str, PartReport], *, as_json: bool) -> None:
    versions = {"python": platform.python_version()}
    versions |= {name: version(name) for part in reports for name in PACKAGES[part]}
    faults = [fault for report in reports.values() for fault in report.missed]
    if as_json:
        measured = {name.replace("-", "_"): report.rows for name, report in reports.items()}
        print(json.dumps({**measured, "missed": faults, "versions": versions}, indent=2))
        return
    print(f"{', '.join(map(' '.join, versions.items()))}.\n")
    for report in reports.values():
        print(f"{report.title}\n\n{report.table}\n")
    print("\n".join(f"MISSED: {fault}." for fault in faults) if faults else "All goals are met.")


def _sign_in(url: str, options: Namespace) -> PartReport:
    results = measure(
        contenders=list(BEGIN),
        url=url,
        round_trips=ROUND_TRIPS,
        warm_up=options.warm_up,
        rounds=options.rounds,
        log=_log,
    )
    return PartReport.create(sign_in_report, results, "The callback of a sign-in of a returning person.")


def _sessions(url: str, options: Namespace) -> PartReport:
    results = sessions_report.Results(
        requests=measure_requests(batches=options.batches),
        pages=measure_pages(url=url, rounds=options.rounds),
        leaving=measure_logout(
            url=url, round_trips=ROUND_TRIPS, warm_up=options.warm_up, rounds=options.rounds, log=_log
        ),
    )
    return PartReport.create(
        sessions_report,
        results,
        "Overhead for a request of a signed-in user; a page after half a minute; and a logout.",
    )


def _sweep(url: str, options: Namespace) -> PartReport:
    results = measure_sweep(
        url=url,
        round_trips=(0.0, 0.02, 0.1),
        seconds=options.sweep,
        logged_out=sweep_report.LOGGED_OUT,
        ended=options.ended,
        log=_log,
    )
    return PartReport.create(sweep_report, results, "Revocation of tokens by sweeps, and ends of many sessions.")


def _leavers(url: str, options: Namespace) -> PartReport:
    results = measure_leavers(
        url=url, people=options.provisioned, leavers=options.leavers, round_trips=(0.0, 0.02), log=_log
    )
    title = f"From `active: false` to the refused request and revoked tokens, {options.provisioned:,} people."
    return PartReport.create(leavers_report, results, title)


def _claims(url: str, options: Namespace) -> PartReport:
    scrubbing = measure_scrub(url=url, rows=options.claims, log=_log)
    return PartReport.create(claims_report, scrubbing, "Erasure of due claims, which are half of all claims.")


def _guard(url: str, options: Namespace) -> PartReport:
    return PartReport.create(
        leak_guard_report, measure_leak_guard(batches=options.batches), "Overhead of the leak guard for a request."
    )


def _sealing(url: str, options: Namespace) -> PartReport:
    results = measure_encryption(url=url, texts=options.texts, log=_log)
    return PartReport.create(
        encryption_report, results, "Key rotation of all encrypted texts; and one call compared with Fernet."
    )


def _watching(url: str, options: Namespace) -> PartReport:
    results = measure_rules(url=url, events=options.watched, log=_log)
    return PartReport.create(anomaly_report, results, "Evaluation of an audit log by the anomaly rules.")


def _dashboard(url: str, options: Namespace) -> PartReport:
    results = measure_admin_pages(url=url, events=options.looked, sessions=options.listed, rounds=20, log=_log)
    title = f"Admin pages with {options.looked:,} events and {options.listed:,} sessions."
    return PartReport.create(dashboard_report, results, title)


def _growth(url: str, options: Namespace) -> PartReport:
    results = measure_growth(
        url=url, people=options.people, sessions=options.people, many=options.many, ended=options.ended, log=_log
    )
    return PartReport.create(growth_report, results, f"Work with {options.people:,} live and as many ended sessions.")


def _outage(url: str, options: Namespace) -> PartReport:
    results = measure_outage(url=url, seconds=options.outage, log=_log)
    return PartReport.create(
        outage_report, results, "Pages of a portal while an endpoint of its provider is slow, and before."
    )


def _startup(url: str, options: Namespace) -> PartReport:
    results = measure_startup(url=url, rounds=options.starts, sign_ins=options.rounds, log=_log)
    return PartReport.create(startup_report, results, "The start of a web process, and the memory of a worker.")


def _deployment(url: str, options: Namespace) -> PartReport:
    if options.sustained is not None:
        load = sustained.measure_sustained(url=url, minutes=options.sustained, visits=options.visits, log=_log)
        return PartReport.create(sustained, load, "Sustained load of a portal under gunicorn.")
    results = measure_deployment(url=url, turns=options.turns, visits=options.visits, log=_log)
    return PartReport.create(
        deployment_report, results, f"Portals under gunicorn, {os.cpu_count()} cores for them and for 16 browsers."
    )


def _parse_sizes(text: str) -> list[int]:
    return sorted(map(int, text.split(",")))


def _log_throughput(url: str, options: Namespace) -> PartReport:
    load = os.getloadavg()[0]
    recorded: dict[Writers, dict[str, Rates]] = {}
    for contenders, writers in ((list(COUNTED), WRITERS), (list(OWN), THREADED_WRITERS)):
        recorded |= measure_writes(
            contenders, url=url, writers=writers, rounds=options.turns, seconds=options.seconds, log=_log
        )[0]
    trail = measure_log(url=url, backlog=options.backlog, verifications=3, log=_log)
    results = audit_report.Results(recorded=recorded, trail=trail, cores=os.cpu_count() or 0, load=load)
    return PartReport.create(
        audit_report, results, f"The audit log, on {results.cores} cores, with a load of {load:.1f} before."
    )


def _log_witnesses(url: str, options: Namespace) -> PartReport:
    costs = measure_witnesses(url=url, sealed=options.backlog, rounds=60, log=_log)
    return PartReport.create(witnesses_report, costs, "A quorum of two of three witnesses, of which one hangs.")


def _log_size(url: str, options: Namespace) -> PartReport:
    results = measure_sizes(
        url=url,
        sizes=options.sizes,
        new=options.new,
        day=options.day,
        converted=options.converted,
        seconds=options.seconds,
        proofs=options.proofs,
        is_kept=options.kept_logs is not None,
        log=_log,
    )
    return PartReport.create(log_size_report, results, "The audit log as it grows.")


def _log(line: str) -> None:
    print(line, file=sys.stderr)


PARTS: Mapping[str, Callable[[str, Namespace], PartReport]] = {
    "sign-in": _sign_in,
    "sessions": _sessions,
    "sweep": _sweep,
    "leavers": _leavers,
    "claims": _claims,
    "guard": _guard,
    "sealing": _sealing,
    "watching": _watching,
    "dashboard": _dashboard,
    "growth": _growth,
    "outage": _outage,
    "startup": _startup,
    "deployment": _deployment,
    "log-throughput": _log_throughput,
    "log-witnesses": _log_witnesses,
    "log-size": _log_size,
}

if __name__ == "__main__":
    sys.exit(main())
