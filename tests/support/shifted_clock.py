"""Run a command at another date: `python -m tests.support.shifted_clock DATE COMMAND [ARGUMENT ...]`.

DATE is an ISO 8601 time in UTC, such as `2028-02-29T12:00`, at which the command begins; `all` runs it at each date of
DATES, and continues after a failure. The difference to the system
time is in the variable of the environment below, so that it is the same in all processes of the run. `tests.settings`
reads the variable: it moves the clock of the app, that of Django and the `Date` of the mock provider, in the process of
the tests and in each process that it starts with these settings or with settings that import them. The package itself
does not read the variable.

These use the system time nevertheless:

- the operating system: `time.time()`, monotonic clocks, `sleep`, files, and OpenSSL, which verifies the period of a
  certificate. Certificates of tests are valid from the system time on until the later one of both times;
- Celery's schedule, caches, signed values and cookies of Django, which only compare `time.time()` with itself;
- processes with settings of their own, such as the example project: they run wholly at the system time;
- PostgreSQL's `clock_timestamp()`. But its `now()`, by which partitions are created, is moved in the temporary server
  (`tests.support.postgresql`). A server of DATABASE_URL is left as it is.

SQLite has no clock that the app uses.
"""

import calendar
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from http.server import BaseHTTPRequestHandler

from django.utils import timezone

from django_phi_oidc._internal import clock

VARIABLE = "PHI_TEST_CLOCK_SHIFT"
"""In seconds. Empty or missing: the system time."""


def get_shift(environ: Mapping[str, str]) -> timedelta:
    """Return how far the environment moves the clock of the tests."""
    return timedelta(seconds=float(environ.get(VARIABLE) or 0))


def shift_clock(environ: Mapping[str, str]) -> None:
    """Move the clocks of this process for the rest of its life. Requires: the models are not imported yet."""
    shift = get_shift(environ)
    if not shift:
        return

    def get_shifted_time() -> datetime:
        return datetime.now(UTC) + shift

    def format_date(handler: BaseHTTPRequestHandler, timestamp: float | None = None) -> str:
        return format_real_date(handler, timestamp or get_shifted_time().timestamp())

    format_real_date = BaseHTTPRequestHandler.date_time_string
    clock._get_system_time = get_shifted_time
    clock._source = get_shifted_time
    # Migrations name the function, so it keeps its name and module.
    timezone.now = wraps(timezone.now)(get_shifted_time)
    # The doctor compares the clock with the `Date` of the provider in this process.
    BaseHTTPRequestHandler.date_time_string = format_date  # type: ignore[assignment,method-assign]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A day, and the time of that day at which a command begins."""

    month: int | None = None
    """None: any month."""
    day: int | None = None
    """None: the last Sunday of the month."""
    time_of_day: timedelta = timedelta(hours=12)

    def find_next(self, now: datetime) -> datetime:
        """Return the first such time from tomorrow on. Today's certificates need not have been valid before today."""
        day = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        while not self._is_on(day):
            day += timedelta(days=1)
        return day + self.time_of_day

    def _is_on(self, day: datetime) -> bool:
        if self.month not in (None, day.month):
            return False
        if self.day is not None:
            return day.day == self.day
        return day.weekday() == calendar.SUNDAY and (day + timedelta(weeks=1)).month != day.month


DATES = {
    "the first day of a month": Beginning(day=1, time_of_day=timedelta(seconds=30)),
    "the last day of a month of 31 days": Beginning(day=31),
    "the end of a month of 30 days": Beginning(month=4, day=30, time_of_day=timedelta(hours=23)),
    "the last day of February": Beginning(month=2, day=28),
    "29 February": Beginning(month=2, day=29),
    "the first day of March": Beginning(month=3, day=1, time_of_day=timedelta(hours=1)),
    "the beginning of summer time in Europe": Beginning(month=3, time_of_day=timedelta(minutes=59)),
    "the end of summer time in Europe": Beginning(month=10, time_of_day=timedelta(minutes=59)),
    "the first day of December": Beginning(month=12, day=1),
    "New Year's midnight while it runs": Beginning(month=12, day=31, time_of_day=timedelta(hours=23, minutes=59)),
}


def build_environment(environ: Mapping[str, str], *, begin: datetime) -> dict[str, str]:
    """Return the environment of a command that begins at that time."""
    shift = begin - datetime.now(UTC)
    return {**environ, VARIABLE: str(shift.total_seconds())}


def run_at_each_date(command: Sequence[str]) -> list[str]:
    """Run the command at each date, and return the names of those at which it failed."""
    failed = []
    for name, beginning in DATES.items():
        begin = beginning.find_next(datetime.now(UTC))
        print(f"=== {begin:%Y-%m-%d %H:%M:%S} UTC: {name}", flush=True)
        environment = build_environment(os.environ, begin=begin)
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(f"{begin:%Y-%m-%d}, {name}")
    return failed


def main(date: str, command: Sequence[str]) -> None:
    """Run the command, and exit with an error if it fails."""
    if date != "all":
        begin = datetime.fromisoformat(date).replace(tzinfo=UTC)
        os.execvpe(command[0], [*command], build_environment(os.environ, begin=begin))
    failed = run_at_each_date(command)
    if failed:
        sys.exit("Failed at " + "; ".join(failed))
    print(f"Passed at {len(DATES)} dates.")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
