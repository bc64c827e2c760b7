"""Databases that exist for one test, made outside Django's test runner, and the environment to use them."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from tests.support import databases
from tests.support.postgresql import given_url


@contextmanager
def scratch_databases(directory: Path, *, shared: bool = False) -> Iterator[dict[str, str]]:
    """Yield the environment of processes for which `default` and `phi_audit` are new, empty databases.

    shared: on PostgreSQL, both aliases are one database.
    """
    run = secrets.token_hex(4)
    if databases.kind(os.environ) == "sqlite":
        names = {alias: {"NAME": str(directory / f"{alias}.sqlite3")} for alias in databases.ALIASES}
        yield databases.child_environment(os.environ, names)
        return
    names = {alias: {"NAME": f"phi_scratch_{run}_{'both' if shared else alias}"} for alias in databases.ALIASES}
    made = sorted({settings["NAME"] for settings in names.values()})
    with psycopg.connect(given_url(os.environ), autocommit=True) as server:
        for name in made:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield databases.child_environment(os.environ, names)
        finally:
            for name in made:
                server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
