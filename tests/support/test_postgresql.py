"""The throw-away PostgreSQL server, and the choice of a given one."""

import os
import sys
from pathlib import Path

import psycopg
import pytest

from tests.support.celery_worker import eventually
from tests.support.postgresql import (
    DIRECT_URL,
    given_url,
    is_pooled,
    restartable_server,
    run,
    throw_away_server,
    transaction_pooler,
)

GIVEN = "postgresql://somebody@db.example.test/portal"


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"DATABASE_URL": GIVEN}, GIVEN),
        ({"DATABASE_URL": "postgresql://other.example.test/", "TEST_DATABASE_URL": GIVEN}, GIVEN),
        ({"DATABASE_URL": "sqlite:///portal.sqlite3"}, ""),
        ({}, ""),
    ],
    ids=["DATABASE_URL", "TEST_DATABASE_URL first", "another database", "nothing"],
)
def test_given_url_from_environment_is_the_postgresql_one(environ: dict[str, str], url: str) -> None:
    assert given_url(environ) == url


def test_throw_away_server_in_its_block_answers_on_a_socket_and_is_gone_after_it() -> None:
    with throw_away_server() as url:
        with psycopg.connect(url) as connection:
            row = connection.execute("SHOW listen_addresses").fetchone()
        assert row == ("",)
        directory = Path(url.partition("host=")[2])
        assert directory.is_dir()
    assert not directory.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


@pytest.mark.parametrize("status", [0, 7])
def test_run_with_a_command_returns_its_exit_status(status: int) -> None:
    script = f"import os, sys; sys.exit({status} if os.environ['TEST_DATABASE_URL'] == '{GIVEN}' else 99)"
    environ = {**os.environ, "TEST_DATABASE_URL": GIVEN}
    assert run([sys.executable, "-c", script], environ=environ) == status


@pytest.mark.pgbouncer
def test_pooler_lends_another_connection_for_each_transaction() -> None:
    with restartable_server() as server, transaction_pooler(server) as url:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as client:
            assert eventually(lambda: len({_server_process(client) for _ in range(4)}) > 1)
            with client.transaction():
                assert len({_server_process(client) for _ in range(4)}) == 1
        with psycopg.connect(server.url, autocommit=True) as direct:
            assert len({_server_process(direct) for _ in range(4)}) == 1
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def _server_process(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.pgbouncer
def test_run_through_the_pooler_ignores_a_given_server_and_names_both_urls() -> None:
    script = (
        f"import os; a, b = os.environ['TEST_DATABASE_URL'], os.environ['{DIRECT_URL}']; assert a == b + '&port=6432'"
    )
    assert run([sys.executable, "-c", script], environ={**os.environ, "DATABASE_URL": GIVEN}, pooled=True) == 0
    assert not is_pooled({"TEST_DATABASE_URL": GIVEN})
