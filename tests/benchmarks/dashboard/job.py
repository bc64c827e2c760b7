"""A portal with many events and sessions: `python -m tests.benchmarks.dashboard.job`, commands and JSON results."""

import hashlib
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module
from typing import Any

from django.core.management import call_command
from django.db import connections

from tests.benchmarks.audit.contenders import COLUMNS, PEOPLE
from tests.benchmarks.audit.job import server_cpu
from tests.benchmarks.dashboard.large_tables import SPAN, UNUSED_CLAIM, UNUSED_PROVIDER, create_rows
from tests.benchmarks.worker_protocol import Command, run_commands

_EVENTS = """
    INSERT INTO phi_oidc_audit_auditevent ({columns})
    SELECT (lpad(to_hex(millis), 12, '0') || '70008000' || lpad(to_hex(number), 12, '0'))::uuid, 1, '0123abcd',
        to_timestamp(millis / 1000.0),
        CASE WHEN number > {count} - {routine} THEN 'token.revoked'
            WHEN number % 5 = 0 THEN 'login.succeeded' WHEN number % 50 = 1 THEN 'login.refused'
            ELSE 'claim.revealed' END,
        CASE WHEN number % 50 = 1 THEN 'failure' ELSE 'success' END,
        (number % {people})::text, '', md5((number % {people})::text), 'default', md5((number / 100)::text),
        '198.51.100.1', CASE WHEN number % 100000 = 0 THEN 'HMARKT' ELSE 'TREAT' END, '',
        CASE WHEN number % 50 = 1 THEN 'reason_' || number / 50 % 12 ELSE '' END, '', '{{}}',
        sha256('a MAC')
    FROM (
        SELECT number, {begun} + number * {span} / {count} AS millis FROM generate_series(1::bigint, {count}) AS number
    ) AS times
"""
_ROUTINE = 4_000
"""The newest events, which a page leaves out: they are revocations of tokens."""
_module = import_module
"""Modules with models cannot be imported before django.setup()."""


def fill(count: int, sessions: int) -> dict[str, Any]:
    """Create the tables, that many events, that many sessions and the rows of the other lists, and a superuser."""
    call_command("migrate", verbosity=0)
    now = datetime.now(UTC)
    _module("django.contrib.auth").get_user_model().objects.create_superuser("officer")
    create_rows(sessions)
    millis = SPAN // timedelta(milliseconds=1)
    begun = int(now.timestamp() * 1000) - millis
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("ALTER TABLE phi_oidc_audit_auditevent DISABLE TRIGGER USER")
        spans = {"begun": begun, "span": millis, "count": count, "routine": min(_ROUTINE, count // 10)}
        cursor.execute(_EVENTS.format(columns=", ".join(COLUMNS), people=PEOPLE, **spans))
        cursor.execute("ALTER TABLE phi_oidc_audit_auditevent ENABLE TRIGGER USER")
    recorder, events = (_module(f"django_phi_oidc.audit.{name}") for name in ("recorder", "events"))
    detail = {"tree_size": count, "findings": 0}
    _module("django_phi_oidc.contrib.officer_admin.hourly_counts").update_counts(now=now)
    recorder.record(events.Action.AUDIT_VERIFIED, origin=events.Origin(), now=now, detail=detail)
    with connections["phi_audit"].cursor() as cursor:
        # Otherwise the server would do this later, during the measurement.
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")
    return {}


def look(rounds: int) -> dict[str, Any]:
    """Return for each page the milliseconds over that many rounds (three for stock pages), and its queries."""
    urls = {**_urls(), **_list_urls()}
    return {name: _measure(url, 3 if url.startswith("/stock/") else rounds) for name, url in urls.items()}


def _measure(url: str, rounds: int) -> dict[str, Any]:
    client, took = _client(), []
    with ExitStack() as stack:
        capturing = _module("django.test.utils").CaptureQueriesContext
        contexts = [stack.enter_context(capturing(connections[alias])) for alias in ("default", "phi_audit")]
        # The name of a single account leads to the page of that person's events.
        assert client.get(url, follow=True).status_code == 200, url
        queries = sum(map(len, contexts))
    cpu = _cpu()
    for _ in range(rounds):
        began = time.perf_counter()
        client.get(url, follow=True)
        took.append((time.perf_counter() - began) * 1000)
    return {"ms": statistics.median(took), "cpu": (_cpu() - cpu) * 1000 / rounds, "queries": queries}


def _cpu() -> float:
    """Return the CPU seconds so far of this process, and of its PostgreSQL processes if they are on this machine."""
    return time.process_time() + sum(server_cpu(alias) or 0.0 for alias in ("default", "phi_audit"))


def _urls() -> dict[str, str]:
    events = _module("django_phi_oidc.audit.models").AuditEvent.objects
    newest = events.order_by("-id")
    phi_oidc, stock = (f"/{site}/phi_oidc_audit/auditevent/" for site in ("admin", "stock"))
    deep = newest[newest.count() * 3 // 4].pk
    day = datetime.now(UTC) - SPAN / 2
    return {
        "first page": phi_oidc,
        "three quarters down": f"{phi_oidc}?before={deep}",
        "by action": f"{phi_oidc}?action=login.refused",
        "by outcome": f"{phi_oidc}?outcome=failure",
        "routine events shown": f"{phi_oidc}?routine=show",
        "by two actions": f"{phi_oidc}?action=login.refused,login.succeeded",
        "by rare purpose": f"{phi_oidc}?purpose=HMARKT",
        "by actor and time": f"{phi_oidc}?actor=7&until={day:%Y-%m-%dT%H:%M}",
        "by person": f"{phi_oidc}?person=7,{hashlib.md5(b'7').hexdigest()}",
        "search for a name": f"{phi_oidc}?search=Person+77",
        "search for a UUID": f"{phi_oidc}?search={deep}",
        "overview": "/admin/",
        "overview, 7 days": "/admin/?period=7d",
        "overview, 30 days": "/admin/?period=30d",
        "deliveries": "/admin/phi_oidc_siem/sinkcursor/",
        "stock, first page": stock,
        "stock, search": f"{stock}?q=7",
    }


def _list_urls() -> dict[str, str]:
    """Return the pages of the large lists. A name with `filter` selects no rows."""
    lists = {
        "sessions": ("oidcsession", ""),
        "sessions, page 100": ("oidcsession", "p=100"),
        "live sessions, page 100": ("oidcsession", "ended_at__isempty=1&p=100"),
        "ended sessions, page 100": ("oidcsession", "ended_at__isempty=0&p=100"),
        "sessions, filter by provider": ("oidcsession", f"provider={UNUSED_PROVIDER}"),
        "live sessions, filter by provider": ("oidcsession", f"ended_at__isempty=1&provider={UNUSED_PROVIDER}"),
        "sessions, filter by end reason": ("oidcsession", "end_reason__exact=row_deleted"),
        "sessions, sort by last seen": ("oidcsession", "o=-5"),
        "sessions of a person": ("oidcsession", "q=person-7"),
        "revocations": ("pendingrevocation", ""),
        "revocations, page 100": ("pendingrevocation", "status__exact=all&p=100"),
        "revocations, filter by provider": ("pendingrevocation", f"provider={UNUSED_PROVIDER}"),
        "revocations, filter by state": ("pendingrevocation", "status__exact=refused"),
        "subjects, page 100": ("pairwisesubject", "p=100"),
        "claims, page 100": ("storedclaim", "p=100"),
        "claims, filter by name": ("storedclaim", f"name={UNUSED_CLAIM}"),
        "claims, filter by end": ("storedclaim", "end=overdue"),
        "activation codes, page 100": ("activationcode", "p=100"),
        "activation codes, filter by state": ("activationcode", "state=waiting"),
        "accountings, page 100": ("accountingcopy", "p=100"),
    }
    get_list_url = _module("tests.support.admin_rows").get_list_url
    return {name: f"{get_list_url(model)}?{query}" for name, (model, query) in lists.items()}


@cache
def _client() -> Any:
    client = _module("django.test").Client()
    client.force_login(_module("django.contrib.auth").get_user_model().objects.get(username="officer"))
    return client


COMMANDS: Mapping[str, Command] = {command.__name__: command for command in (fill, look)}

if __name__ == "__main__":
    run_commands(COMMANDS)
