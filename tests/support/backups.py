"""Back up and restore the default database with the tools of PostgreSQL or SQLite."""

import os
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from django.db import connections

from tests.support.postgresql import find_programs

CLAIMS = "django_phi_oidc_storedclaim"


def back_up(path: Path, *, using: str = "default") -> None:
    """Write the committed state of the database to path, with pg_dump or SQLite's backup."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        run_client("pg_dump", "--format=custom", f"--file={path}", using=using)
        return
    connection.ensure_connection()
    with closing(sqlite3.connect(path)) as copy:
        connection.connection.backup(copy)


def restore(path: Path, table: str = CLAIMS, *, using: str = "default") -> None:
    """Restore the rows of an empty table."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        script = run_client("pg_restore", "--data-only", f"--table={table}", "--file=-", str(path), using=using)
        # pg_restore 18 sets it for each server, but servers up to 16 do not have it.
        script = re.sub("^SET transaction_timeout = .*\n", "", script, flags=re.MULTILINE)
        run_client("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", using=using, given=script)
        return
    with connection.cursor() as cursor:
        cursor.execute("ATTACH DATABASE %s AS backup", [str(path)])
        try:
            cursor.execute(f"INSERT INTO main.{table} SELECT * FROM backup.{table}")
        finally:
            cursor.execute("DETACH DATABASE backup")


def run_client(program: str, *arguments: str, using: str = "default", given: str = "") -> str:
    """Run a client program of the newest PostgreSQL, which supports older servers; return its output.

    given: its standard input.
    """
    programs = find_programs()
    newest = programs[max(programs)]
    declared = connections[using].settings_dict
    names = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
    where = {name: str(declared[key]) for name, key in names.items() if declared.get(key)}
    host = {"PGHOST": declared["OPTIONS"]["host"]} if "host" in declared["OPTIONS"] else {}
    # In a new session without a terminal, a client cannot prompt for a password.
    completed = subprocess.run(
        [newest / program, *arguments],
        env={**os.environ, **where, **host},
        input=given,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        check=True,
    )
    return completed.stdout
