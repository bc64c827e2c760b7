"""Declare the periodic tasks, and limit how long they wait for locks.

A process that was stopped inside a transaction keeps its locks. Without a limit, each run of a task
would wait for them and occupy a worker, until no worker is left for the other tasks.

`tasks.py` in the root registers them with Celery, from the `tasks` modules of the apps that are
installed: web processes import the functions, and never Celery.
"""

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Protocol

from .sql import limit_lock_waits

LOCK_WAIT_SECONDS = 5.0
"""For each statement. The task fails then, and its next run tries again."""
PERIODIC_TASKS: dict[str, Callable[[], Any]] = {}
"""The declared functions by the names of their tasks."""


class RowPruner(Protocol):
    """Deletes rows whose retention has ended. before: the end of the retention period; the current
    time if OPERATIONAL_RETENTION is not set.
    """

    def __call__(self, *, now: datetime, before: datetime) -> None: ...


ROW_PRUNERS: list[RowPruner] = []
"""The functions that `phi_oidc.prune` calls, in the order of INSTALLED_APPS."""


def row_pruner(function: RowPruner) -> RowPruner:
    """Declare a function that `phi_oidc.prune` calls."""
    ROW_PRUNERS.append(function)
    return function


def periodic_task(name: str) -> Callable[[Callable[[], Any]], Any]:
    """Return a decorator that declares a function without arguments as the task of that name."""

    def declare(function: Callable[[], Any]) -> Any:
        @wraps(function)
        def run() -> Any:
            with limit_lock_waits(LOCK_WAIT_SECONDS):
                return function()

        PERIODIC_TASKS[name] = run
        return run

    return declare
