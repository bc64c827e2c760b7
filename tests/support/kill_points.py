"""The points of a process between which nothing changes that another process could see.

They are before each statement, before and after each COMMIT, in the middle of data that is sent to the database or
written to a file at once, and before a file is written, synced or renamed. Django's cursors and its commit method,
psycopg's COPY and Python's files are wrapped. The package itself is not patched.
"""

import builtins
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from django.db import connections

from tests.support.databases import ALIASES

_OF_INTEREST = re.compile(r"django_phi_oidc_(\w+)|(auth_\w+|pg_\w+|set_config)")
Reach = Callable[[str], None]


def watch(reach: Reach) -> None:
    """Call reach with the name of each point that this process passes from now on."""
    for alias in ALIASES:
        connection: Any = connections[alias]
        connection.execute_wrappers.append(partial(_watched_statement, reach))
        connection._commit = partial(_watched_commit, reach, alias, connection._commit)
    psycopg.Cursor.copy = _bound(_watched_copy, reach, psycopg.Cursor.copy)
    psycopg.Copy.write = _bound(_watched_copy_in, reach, psycopg.Copy.write)
    psycopg.Copy.rows = _bound(_watched_copy_out, reach, psycopg.Copy.rows)
    os.fsync = partial(_watched_call, reach, "fsync", os.fsync)
    os.fdopen = partial(_watched_call, reach, "fdopen", os.fdopen)
    os.replace = partial(_watched_call, reach, "rename", os.replace)
    builtins.open = partial(_watched_open, reach, builtins.open)


def _bound(function: Callable[..., Any], *leading: Any) -> Any:
    """Return a method that calls function with leading arguments before its object."""
    return lambda *args, **kwargs: function(*leading, *args, **kwargs)


def _watched_statement(reach: Reach, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    reach(_name_of(sql))
    if not many:
        return execute(sql, params, many, context)
    rows = list(params)
    execute(sql, rows[: len(rows) // 2], many, context)
    reach(f"the middle of {_name_of(sql)}")
    return execute(sql, rows[len(rows) // 2 :], many, context)


def _watched_commit(reach: Reach, alias: str, commit: Any) -> Any:
    """Django commits only by this method. In autocommit, the statement itself commits."""
    reach(f"COMMIT on {alias}")
    commit()
    reach(f"after COMMIT on {alias}")


@contextmanager
def _watched_copy(reach: Reach, copy: Any, cursor: Any, statement: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
    reach(_name_of(statement))
    with copy(cursor, statement, *args, **kwargs) as copied:
        yield copied


def _watched_copy_in(reach: Reach, write: Any, copied: Any, data: bytes) -> None:
    write(copied, data[: len(data) // 2])
    reach("the middle of what is copied in")
    write(copied, data[len(data) // 2 :])


def _watched_copy_out(reach: Reach, rows: Any, copied: Any) -> Iterator[Any]:
    for number, row in enumerate(rows(copied)):
        if number == 1:
            reach("the middle of what is copied out")
        yield row


def _watched_call(reach: Reach, name: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    reach(name)
    return call(*args, **kwargs)


def _watched_open(reach: Reach, open_: Any, file: Any, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
    if buffering:
        return open_(file, mode, buffering, **kwargs)
    return _HalfWriter(reach, file, mode.replace("b", ""))


class _HalfWriter(io.FileIO):
    """A file whose first write writes only half of the data, as the operating system may."""

    def __init__(self, reach: Reach, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._reach: Reach | None = reach

    def write(self, data: Any) -> int:
        if self._reach is None:
            return super().write(data)
        reach, self._reach = self._reach, None
        reach("write")
        written = super().write(memoryview(data)[: len(data) // 2])
        reach("the middle of what is written")
        return written


def _name_of(sql: str) -> str:
    match = _OF_INTEREST.search(sql)
    return " ".join(filter(None, (sql.split(maxsplit=1)[0], *(match.groups() if match else ()))))
