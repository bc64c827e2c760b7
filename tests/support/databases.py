"""The databases of the tests: two SQLite files, or one PostgreSQL database under both aliases, as PHI_TEST_DB says."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dj_database_url

from tests.support.postgresql import given_url, is_pooled

ALIASES = ("default", "phi_audit")
KINDS = ("sqlite", "postgresql")
# As the app's system checks demand them of a project on SQLite.
SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON;",
}

MEMORY_NEEDED = 1 << 30
"""Bytes of the databases of a run, and more."""


def kind(environ: Mapping[str, str]) -> str:
    """Return "sqlite" or "postgresql". Raises: ValueError for anything else."""
    chosen = environ.get("PHI_TEST_DB", "sqlite")
    if chosen not in KINDS:
        raise ValueError(f"PHI_TEST_DB must be one of {', '.join(KINDS)}.")
    return chosen


def declare(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return Django's DATABASES. Names are new for each process, so that concurrent runs use different databases.

    A process with TEST_DATABASE_NAME_<ALIAS> in its environment opens that very database: child_environment() sets it.
    """
    run = secrets.token_hex(4)
    if kind(environ) == "sqlite":
        return {alias: _sqlite(environ.get(_variable(alias), ""), alias, run) for alias in ALIASES}
    return {alias: _postgresql(environ, alias, run) for alias in ALIASES}


def child_environment(environ: Mapping[str, str], databases: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the environment for a process that uses the databases of the running test."""
    names = {_variable(alias): str(databases[alias]["NAME"]) for alias in ALIASES}
    return {**environ, **names, "DJANGO_SETTINGS_MODULE": "tests.settings"}


def _sqlite(name: str, alias: str, run: str) -> dict[str, Any]:
    file = _folder() / f"phi_oidc_{run}_{alias}.sqlite3"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": name or str(file.with_suffix(".never-opened")),
        "OPTIONS": SQLITE_OPTIONS,
        "TEST": {"NAME": str(file)},
    }


def _folder() -> Path:
    """Return a folder in memory if the system has one: SQLite waits for the disk when a connection is closed."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MEMORY_NEEDED
    return memory if has_room else Path(tempfile.gettempdir())


def _postgresql(environ: Mapping[str, str], alias: str, run: str) -> dict[str, Any]:
    url = given_url(environ)
    if not url:
        raise ValueError(
            "PHI_TEST_DB=postgresql needs DATABASE_URL; `python -m tests.support.postgresql COMMAND` brings one."
        )
    declared: dict[str, Any] = dict(dj_database_url.parse(url))
    return {
        **declared,
        "OPTIONS": {**declared.get("OPTIONS", {}), "connect_timeout": 5},
        # As docs/how-to/deploy-pgbouncer.md demands.
        "DISABLE_SERVER_SIDE_CURSORS": is_pooled(environ),
        "NAME": environ.get(_variable(alias)) or declared["NAME"],
        "TEST": {"NAME": f"test_phi_oidc_{run}"},
    }


def _variable(alias: str) -> str:
    return f"TEST_DATABASE_NAME_{alias.upper()}"
