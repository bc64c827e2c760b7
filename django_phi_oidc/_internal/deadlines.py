"""Callbacks at a deadline, in one daemon thread per process. A thread for each deadline would cost
more than TLS.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable


class DeadlineScheduler:
    """Runs callbacks at their time. Few are scheduled at once, because each is cancelled when its
    work is done.

    Requires: callbacks are short and do not raise.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._scheduled: dict[int, tuple[float, Callable[[], None]]] = {}
        self._keys = itertools.count()
        self._wakes_at = float("inf")
        """When the waiting thread wakes without a notification."""
        self._thread: threading.Thread | None = None

    def call_at(self, monotonic_time: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Run the callback at or soon after that value of time.monotonic(). Return a function that
        cancels it.

        A callback that has started is not cancelled.
        """
        key = next(self._keys)

        def cancel() -> None:
            self._scheduled.pop(key, None)

        with self._condition:
            self._scheduled[key] = (monotonic_time, callback)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="phi_oidc deadlines", daemon=True
                )
                self._thread.start()
            elif monotonic_time < self._wakes_at:
                self._condition.notify()
        return cancel

    def _run(self) -> None:
        while True:
            with self._condition:
                while (callback := self._pop_due()) is None:
                    seconds = self._wakes_at - time.monotonic()
                    self._condition.wait(None if seconds == float("inf") else max(seconds, 0))
            callback()

    def _pop_due(self) -> Callable[[], None] | None:
        """Return the callback that is due first; if none is due, None, with the time of the next
        one in _wakes_at.
        """
        # A copy, because cancelling takes no lock.
        times = [(at, key) for key, (at, _) in self._scheduled.copy().items()]
        self._wakes_at, key = min(times, default=(float("inf"), -1))
        if self._wakes_at > time.monotonic():
            return None
        _, callback = self._scheduled.pop(key, (0.0, _do_nothing))
        return callback


def _do_nothing() -> None:
    """Stands for a callback that was cancelled."""


# Keyed by process id: a forked child has no timer thread, and a thread that it lacks may hold the
# inherited lock.
_schedulers_by_pid: dict[int, DeadlineScheduler] = {}


def call_at(monotonic_time: float, callback: Callable[[], None]) -> Callable[[], None]:
    """Do what `DeadlineScheduler.call_at` does, with the scheduler of this process."""
    pid = os.getpid()
    scheduler = _schedulers_by_pid.get(pid) or _schedulers_by_pid.setdefault(
        pid, DeadlineScheduler()
    )
    return scheduler.call_at(monotonic_time, callback)
