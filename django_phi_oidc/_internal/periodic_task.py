"""Declare the periodic Celery tasks: none of them waits for a lock without limit.

A process that was stopped inside a transaction keeps its locks. Without a limit, each run of a task would wait for them
and occupy a worker, until no worker is left for the other tasks.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import shared_task

from .sql import limit_lock_waits

LOCK_WAIT_SECONDS = 5.0
"""For each statement. The task fails then, and its next run tries again."""


def periodic_task(name: str) -> Callable[[Callable[[], Any]], Any]:
    """Return a decorator that registers a function without arguments as the Celery task of that name."""

    def register(function: Callable[[], Any]) -> Any:
        @wraps(function)
        def run() -> Any:
            with limit_lock_waits(LOCK_WAIT_SECONDS):
                return function()

        return shared_task(name=name, ignore_result=True, acks_late=True)(run)

    return register
