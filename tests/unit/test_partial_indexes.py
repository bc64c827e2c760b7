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
    FROM (SELECT * FROM {table} ORDER BY id LIMIT 1) stored, generate_series(1, 2000) number
"""
CHANGES = {
    "oidcsession": "jsonb_build_object('id', gen_random_uuid(), 'sid_digest', number)",
    "storedclaim": "jsonb_build_object('id', -number, 'session', gen_random_uuid())",
}
"""What differs between the rows."""


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
    sign_in()
    name = f"django_phi_oidc_{table}"
    with connection.cursor() as cursor:
        cursor.execute(COPY_ROWS.format(table=name, changes=CHANGES[table]))
        cursor.execute(f"ANALYZE {name}")
        with CaptureQueriesContext(connection) as context:
            act()
        query = next(query["sql"] for query in context.captured_queries if name in query["sql"])
        cursor.execute(f"EXPLAIN {query}")
        assert index in str(cursor.fetchall())
