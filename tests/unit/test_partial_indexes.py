"""The queries of logouts and of the end of a session use the partial indexes."""

import uuid
from collections.abc import Callable

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.claims.retention import scrub_sessions
from django_phi_oidc.sessions.frontchannel_logout import end_sessions_of_sid

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]
OTHER_INDEXES = """
    SELECT indexrelid::regclass::text FROM pg_index
    WHERE indrelid = %s::regclass AND NOT indisunique AND indexrelid <> %s::regclass
"""


def end_by_sid() -> None:
    end_sessions_of_sid("a-sid", issuer="https://op.example.test", origin=Origin(), now=clock.now())


def scrub(count: int) -> None:
    with transaction.atomic():
        scrub_sessions([uuid.uuid4() for _ in range(count)], origin=Origin(), now=clock.now())


@pytest.mark.parametrize(
    ("act", "table", "index"),
    [
        (end_by_sid, "oidcsession", "phi_oidc_session_sid"),
        (lambda: scrub(1), "storedclaim", "phi_oidc_claim_session"),
        # PostgreSQL compares at most a hundred values of a list with the condition of an index.
        (lambda: scrub(101), "storedclaim", "phi_oidc_claim_session"),
    ],
)
def test_query_uses_the_partial_index(act: Callable[[], None], table: str, index: str) -> None:
    with CaptureQueriesContext(connection) as context:
        act()
    query = next(query["sql"] for query in context.captured_queries if f"django_phi_oidc_{table}" in query["sql"])
    with connection.cursor() as cursor:
        # Without rows, other indexes cost about the same, and so does the table, completely or in the order of the key.
        cursor.execute(OTHER_INDEXES, [f"django_phi_oidc_{table}", index])
        for (name,) in cursor.fetchall():
            cursor.execute(f'DROP INDEX "{name}"')
        for option in ("seqscan", "indexscan"):
            cursor.execute(f"SET LOCAL enable_{option} TO off")
        cursor.execute(f"EXPLAIN {query}")
        assert index in str(cursor.fetchall())
