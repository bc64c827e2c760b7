"""A measured portal: `python -m tests.benchmarks.sign_in.portal` creates its tables, prints its port, and serves.

One process, one thread, and one persistent connection per database alias. `GET /measured` returns the cost of the
previous request: the time from the call of the WSGI application until the response is closed, and the CPU time of the
process.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import make_server

import django
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connections

from tests.benchmarks.sign_in.provider import PERSON
from tests.support.portal_process import Quiet

FRAMES = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")
WRITES = ("INSERT", "UPDATE", "DELETE")


class Measuring:
    """A WSGI application that measures another one."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._measured: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/measured":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self._measured).encode()]
        counting = "HTTP_X_COUNT" in environ
        for connection in connections.all():
            connection.force_debug_cursor = counting
        wall, cpu = time.perf_counter(), time.process_time()
        response = self._application(environ, start_response)
        try:
            body = b"".join(response)
        finally:
            response.close()
        self._measured = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        if counting:
            logs = [split_log([entry["sql"] for entry in connection.queries_log]) for connection in connections.all()]
            self._measured["statements"] = sum(len(statements_of(log)) for log in logs)
            self._measured["commits"] = sum(commits_of(log) for log in logs)
            self._measured["written"] = [table for log in logs for table in written_of(log)]
        return [body]


def split_log(log: list[str]) -> list[str]:
    """Return each statement alone, also those that were sent together (`combine_inserts`)."""
    return [statement for sent in log for statement in re.split(r'; (?=INSERT INTO ")', sent)]


def statements_of(log: list[str]) -> list[str]:
    """Return the statements other than transaction control."""
    return [sql for sql in log if not sql.startswith(FRAMES)]


def commits_of(log: list[str]) -> int:
    """Return the number of transactions with writes that waited for the disk."""
    commits, is_open, has_written = 0, False, False
    for sql in log:
        if sql.startswith("BEGIN"):
            is_open, has_written = True, False
        elif sql.startswith(WRITES) and "synchronous_commit" not in sql:
            has_written = True
            commits += not is_open
        elif sql.startswith("COMMIT"):
            commits += has_written
            is_open = False
    return commits


def written_of(log: list[str]) -> list[str]:
    """Return the tables written to, in order of the statements."""
    return [sql.split('"')[1] for sql in log if sql.startswith(WRITES)]


def main() -> None:
    """Serve until killed."""
    django.setup()
    call_command("migrate", verbosity=0)
    # For contenders that find a user by `sub` or e-mail address; the others create one at the first sign-in.
    get_user_model().objects.create_user(PERSON["sub"], PERSON["email"])
    server = make_server("127.0.0.1", 0, Measuring(get_wsgi_application()), handler_class=Quiet)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
