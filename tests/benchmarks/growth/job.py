"""A process in the database of a hospital: `python -m tests.benchmarks.growth.job`, commands and JSON results."""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from secrets import token_urlsafe
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.benchmarks.worker_protocol import Command, run_commands
from tests.support.manual_blocks import block

SESSION, REVOCATION = "django_phi_oidc_oidcsession", "django_phi_oidc_pendingrevocation"
BULK_PROVIDER = "bulk"
RUNS = 5
LIST = "/admin/django_phi_oidc/oidcsession/"
LISTS = {
    "list, first page": LIST,
    "list, page 100": f"{LIST}?p=100",
    "list, filter without rows": f"{LIST}?end_reason__exact=invalid_grant",
    "list, by the end": f"{LIST}?ended_at__isempty=0",
    "list, by the end, page 100": f"{LIST}?ended_at__isempty=0&p=100",
}
"""Other orders are not offered."""
NO_INDEX = "search for a name without an index"
_PERSON, _LOST_PERSON, _BULK_PERSON = "person with many sessions", "person of lost sessions", "person of the bulk end"


def fill(people: int, live: int, ended: int) -> dict[str, Any]:
    """Create the tables and that many rows."""
    call_command("migrate", verbosity=0)
    get_user_model()._default_manager.create_superuser("officer")
    _population().fill(people=people, live=live, ended=ended)
    return {}


def add(many: int, ended: int) -> dict[str, Any]:
    """Create sessions with tokens that can be decrypted: twice many of a person, and `ended` at another provider."""
    for name, provider, count in (
        (_PERSON, "default", many),
        (_LOST_PERSON, "default", many),
        (_BULK_PERSON, BULK_PROVIDER, ended),
    ):
        person = _population().create_person(name)
        with transaction.atomic():
            for number in range(count):
                _population().sign_in(person, number=number, now=_now(), provider=provider)
    _settle()
    return {}


def overdue() -> dict[str, Any]:
    """Run `end_overdue` without a due session. The floor reads one row."""
    return _measure(_tasks().end_expired_sessions, floor=f"SELECT 1 FROM {SESSION} LIMIT 1")


def check() -> dict[str, Any]:
    """Run `check_sessions` without a lost session. The floor reads the live sessions once."""
    floor = f"SELECT count(session_key_digest) FROM {SESSION} WHERE ended_at IS NULL"
    return _measure(_tasks().end_orphaned_sessions, floor=floor)


def lost() -> dict[str, Any]:
    """Delete the Django sessions of a person, and run `check_sessions`. The floor is an UPDATE of the OIDC sessions."""
    user = _get_user_id(_LOST_PERSON)
    digest = "encode(sha256(convert_to(django_session.session_key, 'UTF8')), 'hex')"
    _execute(
        f"DELETE FROM django_session USING {SESSION} AS oidc"
        f" WHERE oidc.user_id = {user:d} AND oidc.session_key_digest = {digest}"
    )
    return _measure_once(_tasks().end_orphaned_sessions, _build_floor_of_end(f"user_id = {user:d}"))


def scrub() -> dict[str, Any]:
    """Run `scrub` without a due claim. The floor reads one row."""
    floor = "SELECT 1 FROM django_phi_oidc_storedclaim LIMIT 1"
    return _measure(import_module("django_phi_oidc.claims.tasks").scrub, floor=floor)


def prune() -> dict[str, Any]:
    """Delete the ended sessions and revocations past their retention. The floor is a DELETE for each table."""
    floor = [
        f"DELETE FROM {table} WHERE {column} < now() - interval '90 days'"
        for table, column in ((SESSION, "ended_at"), (REVOCATION, "finished_at"))
    ]
    return _measure_once(import_module("django_phi_oidc.tasks").prune, *floor)


def backchannel() -> dict[str, Any]:
    """End the sessions of one person by a logout token. The floor is one UPDATE of their rows."""
    views, tokens = (
        import_module(f"django_phi_oidc.{name}") for name in ("sessions.backchannel_logout", "oidc.logout_token")
    )
    keys = import_module("django_phi_oidc.crypto.keyring").get_keys("subject")
    origin, issuer = import_module("django_phi_oidc.audit.events").Origin(), _population().ISSUER
    token = tokens.LogoutToken(iss=issuer, sub=_PERSON, sid="", jti=token_urlsafe(16), valid_until=_now())
    end = partial(views.process_logout_token, token, provider="default", origin=origin, now=_now())
    floor = _build_floor_of_end(f"user_id = {_get_user_id(_PERSON):d}")
    return _measure_once(partial(end, get_subject_keys=lambda: keys), floor)


def bulk() -> dict[str, Any]:
    """End all sessions of a provider by a job. The floor is one UPDATE of their rows."""
    end_jobs, events = (
        import_module(f"django_phi_oidc.{name}") for name in ("contrib.officer_admin.session_end_jobs", "audit.events")
    )
    selection = end_jobs.SessionSelection(provider=BULK_PROVIDER)
    job = end_jobs.start_bulk_end(selection, reason="maintenance", origin=events.Origin(), now=_now())
    floor = _build_floor_of_end(f"provider = '{BULK_PROVIDER}'")
    return _measure_once(partial(end_jobs.run_job, job.pk, clock=_now, budget_seconds=3600), floor)


def pages() -> dict[str, Any]:
    """Return the median seconds and the statements of each list. The floor reads a hundred rows by an index."""
    client, users = Client(), get_user_model()._default_manager
    client.force_login(users.get(username="officer"))
    # A search finds one person, whose account is the last that a scan reads.
    person = users.exclude(last_name="").order_by("-pk")[0]
    by_name = f"{LIST}?q={person.last_name.lower()}"
    urls = {**LISTS, "list, search for a user name": f"{LIST}?q={person.username}", NO_INDEX: by_name}
    floor = f"SELECT * FROM {SESSION} ORDER BY started_at DESC LIMIT 100"
    measured = {name: _measure(partial(client.get, url), floor=floor) for name, url in urls.items()}
    for statement in (*block("admin-groups", "name-indexes").splitlines(), "ANALYZE auth_user"):
        _execute(statement)
    return {**measured, "list, search for a name": _measure(partial(client.get, by_name), floor=floor)}


def sign_ins(milliseconds: int) -> dict[str, Any]:
    """Store sign-ins for that long, and return how many, and their median time in seconds.

    Each one is the transaction that stores the Django session and the OIDC session, not the whole request.
    """
    person = get_user_model()._default_manager.get(username="template")
    ends_at, took = time.perf_counter() + milliseconds / 1000, []
    while time.perf_counter() < ends_at:
        store = partial(_population().sign_in, person, number=len(took), now=_now())
        took.append(_seconds(store))
    return {"count": len(took), "seconds": statistics.median(took)}


def _measure(function: Callable[[], Any], *, floor: str) -> dict[str, Any]:
    """Return the median seconds of the function and of the floor, in turns, and the statements of one call."""
    with CaptureQueriesContext(connection) as queries:
        function()
    # Now, because each request of a client clears the log of the queries.
    statements = len(queries)
    took = [(_seconds(function), _seconds(partial(_execute, floor))) for _ in range(RUNS)]
    seconds, floor_seconds = (statistics.median(column) for column in zip(*took, strict=True))
    return {"seconds": seconds, "floor": floor_seconds, "statements": statements}


def _measure_once(function: Callable[[], Any], *floor: str) -> dict[str, Any]:
    """Return the seconds of the function and of the floor, which is rolled back, and the rows of the floor."""
    with transaction.atomic():
        began = time.perf_counter()
        count = sum(map(_execute, floor))
        floor_seconds = time.perf_counter() - began
        transaction.set_rollback(True)
    return {"seconds": _seconds(function), "floor": floor_seconds, "count": count}


def _build_floor_of_end(condition: str) -> str:
    return f"UPDATE {SESSION} SET ended_at = now(), access_token = NULL WHERE {condition}"


def _get_user_id(name: str) -> int:
    return int(get_user_model()._default_manager.get(username=name).pk)


def _settle() -> None:
    """Otherwise the server would do this during the measurement."""
    for statement in ("VACUUM ANALYZE", "CHECKPOINT"):
        _execute(statement)


def _seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _execute(statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.rowcount)


def _population() -> Any:
    # Modules with models cannot be imported before django.setup().
    return import_module("tests.benchmarks.growth.population")


def _tasks() -> Any:
    tasks = import_module("django_phi_oidc.sessions.tasks")
    # The pause between the two look-ups of a candidate is no work.
    tasks._MAX_REQUEST_SECONDS = 0.0
    return tasks


def _now() -> Any:
    return import_module("django_phi_oidc._internal.clock").now()


COMMANDS: Mapping[str, Command] = {
    command.__name__: command
    for command in (fill, add, overdue, check, lost, scrub, prune, backchannel, bulk, pages, sign_ins)
}

if __name__ == "__main__":
    run_commands(COMMANDS)
