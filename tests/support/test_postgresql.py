"""The throw-away PostgreSQL server, and the choice of a given one."""

import os
import sys
from pathlib import Path

import psycopg
import pytest

from tests.support.postgresql import (
    DIRECT_URL,
    OLDEST_VERSION,
    given_url,
    is_pooled,
    restartable_server,
    run,
    throw_away_server,
    transaction_pooler,
)

INSTALL_PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "install.md"
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


@pytest.mark.postgresql
def test_oldest_supported_version_is_the_same_in_the_manual() -> None:
    """Django 6.1 needs PostgreSQL 15, too."""
    assert f"PostgreSQL {OLDEST_VERSION} or newer" in INSTALL_PAGE.read_text()


@pytest.mark.parametrize("status", [0, 7])
def test_run_with_a_command_returns_its_exit_status(status: int) -> None:
    script = f"import os, sys; sys.exit({status} if os.environ['TEST_DATABASE_URL'] == '{GIVEN}' else 99)"
    environ = {**os.environ, "TEST_DATABASE_URL": GIVEN}
    assert run([sys.executable, "-c", script], environ=environ) == status


@pytest.mark.pgbouncer
def test_pooler_forgets_the_state_of_a_connection_after_each_transaction() -> None:
    with restartable_server() as server, transaction_pooler(server) as url:
        for address, left in ((server.url, ("on",)), (url, ("off",))):
            with psycopg.connect(address, autocommit=True, prepare_threshold=None) as client:
                client.execute("SET default_transaction_read_only = on")
                assert client.execute("SHOW default_transaction_read_only").fetchone() == left
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


@pytest.mark.pgbouncer
def test_run_through_the_pooler_ignores_a_given_server_and_names_both_urls() -> None:
    script = f"import os; a, b = os.environ['TEST_DATABASE_URL'], os.environ['{DIRECT_URL}']; assert a == b + '/pool'"
    assert run([sys.executable, "-c", script], environ={**os.environ, "DATABASE_URL": GIVEN}, pooled=True) == 0
    assert not is_pooled({"TEST_DATABASE_URL": GIVEN})
