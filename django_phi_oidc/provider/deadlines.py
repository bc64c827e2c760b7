"""R1: one thread of the process ends what takes too long. One for each exchange would cost a sign-in more than TLS."""

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable


class DeadlineScheduler:
    """Calls each act when its time has come, in a thread that begins with the first and never ends.

    Requires: acts that are short and don't raise.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._scheduled: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence_numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def call_at(self, monotonic_time: float, callback: Callable[[], None]) -> None:
        """Call act at that moment of time.monotonic(), or soon after it."""
        due = (monotonic_time, next(self._sequence_numbers), callback)
        with self._condition:
            heapq.heappush(self._scheduled, due)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="phi_oidc deadlines", daemon=True)
                self._thread.start()
            elif self._scheduled[0] is due:
                self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while (left := self._get_remaining_seconds()) is None or left > 0:
                    self._condition.wait(left)
                act = heapq.heappop(self._scheduled)[2]
            act()

    def _get_remaining_seconds(self) -> float | None:
        """Return the seconds until the next act, None when there is none."""
        return self._scheduled[0][0] - time.monotonic() if self._scheduled else None


# By process. A child has not inherited the thread, and the lock may be held by one that it has not either.
_schedulers_by_pid: dict[int, DeadlineScheduler] = {}


def call_at(monotonic_time: float, callback: Callable[[], None]) -> None:
    """Call act at that moment of time.monotonic(), or soon after it, in the thread of this process that does so."""
    watch = _schedulers_by_pid.get(os.getpid())
    if watch is None:
        watch = _schedulers_by_pid.setdefault(os.getpid(), DeadlineScheduler())
    watch.call_at(monotonic_time, callback)
