"""Declare the periodic tasks: none of them waits for a lock without limit.

A process that was stopped inside a transaction keeps its locks. Without a limit, each run of a task
would wait for them and occupy a worker, until no worker is left for the other tasks.

`tasks.py` in the root registers them with Celery: web processes import the functions, and never
Celery.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from .sql import limit_lock_waits

LOCK_WAIT_SECONDS = 5.0
"""For each statement. The task fails then, and its next run tries again."""
PERIODIC_TASKS: dict[str, Callable[[], Any]] = {}
"""The declared functions by the names of their tasks."""


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
