"""The backups of the tests work with each installed version of PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dj_database_url
import pytest
from django.db import connections

from tests.support.backups import back_up, restore
from tests.support.postgresql import find_programs, throw_away_server

ALIAS = "another_server"


@pytest.fixture(params=sorted(find_programs()))
def version(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[int]:
    """Connect ALIAS to a server of that version, and return the version."""
    with throw_away_server(version=request.param) as url, django_db_blocker.unblock():
        connections.databases[ALIAS] = {**connections.databases["default"], "OPTIONS": {}, **dj_database_url.parse(url)}
        try:
            yield request.param
        finally:
            connections[ALIAS].close()
            del connections[ALIAS], connections.databases[ALIAS]


def test_restored_rows_are_those_of_the_backup(version: int, tmp_path: Path) -> None:
    rows = [(1, "Zürich\n"), (2, "Bern")]
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        assert int(cursor.fetchone()[0]) // 10_000 == version
        cursor.execute("CREATE TABLE place (id integer PRIMARY KEY, name text)")
        cursor.execute("CREATE TABLE other (id integer PRIMARY KEY)")
        cursor.executemany("INSERT INTO place VALUES (%s, %s)", rows)
        cursor.execute("INSERT INTO other VALUES (1)")
        back_up(tmp_path / "backup", using=ALIAS)
        cursor.execute("DELETE FROM place")
        restore(tmp_path / "backup", "place", using=ALIAS)
        cursor.execute("SELECT id, name FROM place ORDER BY id")
        assert cursor.fetchall() == rows


def test_versions_of_the_wheel_are_found() -> None:
    assert {16, 18} <= set(find_programs())
