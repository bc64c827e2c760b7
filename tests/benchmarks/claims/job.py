"""A process that works on claims: `python -m tests.benchmarks.claims.job`, one command per line, results in JSON."""

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from django.core.management import call_command
from django.db import connection

from tests.benchmarks.worker_protocol import Command, peak_memory, run_commands

CLAIM, SUBJECT, USER = "django_phi_oidc_storedclaim", "django_phi_oidc_pairwisesubject", "auth_user"
CLAIMS_EACH = 10
"""Claims per person."""
READING_PAUSE = 0.01
"""Seconds between two reads."""


def migrate() -> dict[str, Any]:
    """Create the tables."""
    call_command("migrate", verbosity=0)
    return {}


def fill(count: int) -> dict[str, Any]:
    """Write that many claims, stored over two days; those of the first day are due."""
    persons = count // CLAIMS_EACH
    statements = (
        f"INSERT INTO {USER} (id, password, is_superuser, username, first_name, last_name, email, is_staff, is_active,"
        f" date_joined) SELECT n, '', false, 'person ' || n, '', '', '', false, true, now()"
        f" FROM generate_series(1, {persons:d}) AS n",
        f"INSERT INTO {SUBJECT} (id, uuid, user_id, issuer, first_seen_at, last_seen_at, retention_key_id)"
        f" SELECT n, gen_random_uuid(), n, 'https://op.example.test', now(), now(), gen_random_uuid()"
        f" FROM generate_series(1, {persons:d}) AS n",
        f"INSERT INTO {CLAIM} (subject_id, session, name, bucket, value, purpose, obtained_at, expires_at,"
        " owner, retained_until)"
        f" SELECT n % {persons:d} + 1, '00000000-0000-0000-0000-000000000000', 'claim_' || n / {persons:d}, '',"
        # As long as an encrypted address.
        " '01234567:' || repeat(md5(n::text), 10), 'TREAT', now() - interval '1 day',"
        f" now() + (n - {count / 2}) / {count} * interval '2 days' + CASE WHEN n < {count // 2} THEN interval '0' ELSE"
        " interval '1 hour' END, n::text, now() + interval '2 days'"
        f" FROM generate_series(0, {count - 1:d}) AS n",
    )
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")
    return {}


def bare() -> dict[str, Any]:
    """Delete due claims with one statement."""
    began = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {CLAIM} WHERE expires_at <= now()")
        erased = cursor.rowcount
    return {"erased": erased, "wall": time.perf_counter() - began}


def scrub() -> dict[str, Any]:
    """Erase due claims like the task, with its events."""
    clock, retention = (
        import_module("django_phi_oidc._internal.clock"),
        import_module("django_phi_oidc.claims.retention"),
    )
    connection.ensure_connection()
    began = time.perf_counter()
    erased = retention.scrub_due_claims(now=clock.now())
    return {"erased": erased, "wall": time.perf_counter() - began, "peak": peak_memory()}


def left() -> dict[str, Any]:
    """Count the claims, and those that are due."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*), count(*) FILTER (WHERE expires_at <= now()) FROM {CLAIM}")
        there, due = cursor.fetchone()
    return {"there": there, "due": due}


def read(milliseconds: int) -> dict[str, Any]:
    """Read claims for that long, like `reveal`, and return the latencies in seconds."""
    models = import_module("django_phi_oidc.claims.models")
    ends_at, took, person = time.perf_counter() + milliseconds / 1000, [], 0
    while time.perf_counter() < ends_at:
        person += 1
        began = time.perf_counter()
        rows = models.StoredClaim.objects.filter(
            subject__user=person % 1000 + 1, session__in=[models.NO_SESSION], name="claim_1"
        ).select_related("subject")
        list(rows)
        took.append(time.perf_counter() - began)
        # Like users; continuous reads would use one of two cores.
        time.sleep(READING_PAUSE)
    took.sort()
    return {"reads": len(took), "median": took[len(took) // 2], "p99": took[len(took) * 99 // 100]}


COMMANDS: Mapping[str, Command] = {command.__name__: command for command in (migrate, fill, bare, scrub, left, read)}


if __name__ == "__main__":
    run_commands(COMMANDS)
