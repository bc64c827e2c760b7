"""Measure, and say whether the aim is met: `make bench`, or `python -m tests.benchmarks`. Exits with 1 when it is not.

Needs the extra `bench`. PostgreSQL is the server of DATABASE_URL, which must have fsync on, or one of its own.
"""

import json
import os
import platform
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version

from tests.benchmarks.sign_in.measuring import BEGIN, DURABLE, check_durable, measure
from tests.benchmarks.sign_in.telling import missed, rows, table
from tests.postgresql import given_url, throw_away_server

ROUND_TRIPS = (0.0, 0.02)
RAN_WITH = ("django", "mozilla-django-oidc", "social-auth-app-django", "social-auth-core", "psycopg", "urllib3")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    parser = ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200, help="sign-ins measured at each portal")
    parser.add_argument("--warm-up", type=int, default=50, help="sign-ins before those")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    ran_with = {"python": platform.python_version(), **{name: version(name) for name in RAN_WITH}}
    with ExitStack() as stack:
        url = given_url(os.environ) or stack.enter_context(throw_away_server(options=DURABLE))
        check_durable(url)
        results = measure(
            contenders=list(BEGIN),
            url=url,
            round_trips=ROUND_TRIPS,
            warm_up=options.warm_up,
            rounds=options.rounds,
            told=lambda line: print(line, file=sys.stderr),
        )
    faults = missed(results)
    if options.json:
        print(json.dumps({"sign_in": rows(results), "missed": faults, "versions": ran_with}, indent=2))
    else:
        print(f"Sign-in, a returning person, the callback alone. {', '.join(map(' '.join, ran_with.items()))}.\n")
        print(table(results))
        print("\n" + "\n".join(f"MISSED: {fault}." for fault in faults) if faults else "\nThe aim is met.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
