"""R1: one thread of the process ends what takes too long. One for each exchange would cost a sign-in more than TLS."""

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable


class Watch:
    """Calls each act when its time has come, in a thread that begins with the first and never ends.

    Requires: acts that are short and don't raise.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def call_at(self, moment: float, act: Callable[[], None]) -> None:
        """Call act at that moment of time.monotonic(), or soon after it."""
        due = (moment, next(self._numbers), act)
        with self._changed:
            heapq.heappush(self._due, due)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="phi_oidc deadlines", daemon=True)
                self._thread.start()
            elif self._due[0] is due:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while (left := self._left()) is None or left > 0:
                    self._changed.wait(left)
                act = heapq.heappop(self._due)[2]
            act()

    def _left(self) -> float | None:
        """Return the seconds until the next act, None when there is none."""
        return self._due[0][0] - time.monotonic() if self._due else None


# By process. A child has not inherited the thread, and the lock may be held by one that it has not either.
_watches: dict[int, Watch] = {}


def call_at(moment: float, act: Callable[[], None]) -> None:
    """Call act at that moment of time.monotonic(), or soon after it, in the thread of this process that does so."""
    watch = _watches.get(os.getpid())
    if watch is None:
        watch = _watches.setdefault(os.getpid(), Watch())
    watch.call_at(moment, act)
