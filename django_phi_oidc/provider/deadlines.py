"""R1: one timer thread per process ends exchanges that take too long. One per exchange would cost more than TLS."""

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable


class DeadlineScheduler:
    """Runs callbacks at their time, in a daemon thread that the first call starts and that never ends.

    Requires: callbacks are short and do not raise.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._scheduled: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence_numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def call_at(self, monotonic_time: float, callback: Callable[[], None]) -> None:
        """Run the callback at or soon after that value of time.monotonic()."""
        entry = (monotonic_time, next(self._sequence_numbers), callback)
        with self._condition:
            heapq.heappush(self._scheduled, entry)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="phi_oidc deadlines", daemon=True)
                self._thread.start()
            elif self._scheduled[0] is entry:
                self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while (remaining := self._get_remaining_seconds()) is None or remaining > 0:
                    self._condition.wait(remaining)
                callback = heapq.heappop(self._scheduled)[2]
            callback()

    def _get_remaining_seconds(self) -> float | None:
        return self._scheduled[0][0] - time.monotonic() if self._scheduled else None


# Keyed by process id: a forked child has no timer thread, and a thread that it lacks may hold the inherited lock.
_schedulers_by_pid: dict[int, DeadlineScheduler] = {}


def call_at(monotonic_time: float, callback: Callable[[], None]) -> None:
    """Run the callback in this process's timer thread, at or soon after that value of time.monotonic()."""
    pid = os.getpid()
    scheduler = _schedulers_by_pid.get(pid) or _schedulers_by_pid.setdefault(pid, DeadlineScheduler())
    scheduler.call_at(monotonic_time, callback)
