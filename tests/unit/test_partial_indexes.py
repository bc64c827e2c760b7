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
from tests.support.session_fixtures import SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [pytest.mark.django_db(databases=["default", "phi_audit"]), pytest.mark.postgresql]
COPY_ROWS = """
    INSERT INTO {table} SELECT (jsonb_populate_record(NULL::{table}, to_jsonb(stored) || {changes})).*
    FROM (SELECT * FROM {table} ORDER BY id LIMIT 1) stored, generate_series(1, {count}) number
"""
CHANGES = {
    "oidcsession": "jsonb_build_object('id', gen_random_uuid(), 'sid_digest', number)",
    "storedclaim": "jsonb_build_object('id', -number, 'session', gen_random_uuid())",
}
"""What differs between the rows."""
COUNTS = {"oidcsession": 2_000, "storedclaim": 20_000}
"""PostgreSQL 15 reads a table of 2,000 claims from start to end, rather than search its index a hundred times."""
DROP_OTHER_INDEX = "ALTER TABLE django_phi_oidc_storedclaim DROP CONSTRAINT phi_oidc_stored_claim_unique"
"""As all these claims have one subject, PostgreSQL 18 could use this index, which begins with the subject."""


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
def test_query_uses_the_partial_index(
    act: Callable[[], None], table: str, index: str, sign_in: Callable[[], SignedIn]
) -> None:
    name = f"django_phi_oidc_{table}"
    with connection.cursor() as cursor:
        cursor.execute(DROP_OTHER_INDEX)
        sign_in()
        cursor.execute(COPY_ROWS.format(table=name, changes=CHANGES[table], count=COUNTS[table]))
        cursor.execute(f"ANALYZE {name}")
        with CaptureQueriesContext(connection) as context:
            act()
        query = next(query["sql"] for query in context.captured_queries if name in query["sql"])
        cursor.execute(f"EXPLAIN {query}")
        assert index in str(cursor.fetchall())
