"""The databases of the tests, and their way to another process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.db import connections

from tests.support.databases import child_environment, kind

ROOT = Path(__file__).resolve().parents[2]
PRINT_USERNAMES = """
import django
django.setup()
from django.contrib.auth import get_user_model
print(*get_user_model().objects.values_list("username", flat=True))
"""


@pytest.mark.django_db(transaction=True)
def test_child_environment_in_another_process_opens_the_database_of_the_running_test() -> None:
    get_user_model().objects.create(username="somebody")
    finished = subprocess.run(
        [sys.executable, "-c", PRINT_USERNAMES],
        cwd=ROOT,
        env=child_environment(os.environ, connections.settings),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert finished.stdout.split() == ["somebody"]


@pytest.mark.parametrize("alias", ["default", "phi_audit"])
@pytest.mark.sqlite
@pytest.mark.django_db(databases=["default", "phi_audit"])
def test_declare_for_sqlite_gives_the_options_that_the_app_demands(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        found = [cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "secure_delete")]
    assert found == ["wal", 1]
    assert connections[alias].transaction_mode == "IMMEDIATE"


@pytest.mark.postgresql
@pytest.mark.django_db(databases=["default", "phi_audit"])
def test_declare_for_postgresql_gives_two_connections_to_one_database() -> None:
    names, sessions = set(), set()
    for alias in ("default", "phi_audit"):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT current_database(), pg_backend_pid()")
            name, session = cursor.fetchone()
        names.add(name)
        sessions.add(session)
    assert (len(names), len(sessions)) == (1, 2)


@pytest.mark.parametrize("chosen", ["sqlite", "postgresql"])
def test_kind_that_is_known_is_returned(chosen: str) -> None:
    assert kind({"PHI_TEST_DB": chosen}) == chosen


def test_kind_that_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="PHI_TEST_DB"):
        kind({"PHI_TEST_DB": "mysql"})
