"""R1: limits on the calls to one provider, so that a provider that hangs does not take the threads
of the portal along.

Three limits, for each provider and process:
- At most `max_concurrent_calls` run at once. A further call waits for its turn while calls finish,
  and is refused as soon as each running call has waited for longer than STALLED_SECONDS.
- After MAX_FAILURES calls in a row that failed that slowly, no call is made for SUSPENSION_SECONDS.
  Then one tries.
- `limit_total_time` limits the calls of one request together.
Calls of a sweep occupy its own threads and no thread of the portal. They are counted apart,
BACKGROUND_FACTOR times as many may run at once, and the failures of both kinds count together.
A call that is refused was not sent, so it can be repeated.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import Code, RuleCode, TransportError

STALLED_SECONDS = 1.0
"""A call that has waited for longer does not count as progress."""
MAX_FAILURES = 2
SUSPENSION_SECONDS = 20.0
BACKGROUND_FACTOR = 12
MAX_BACKGROUND_CALLS = 32
"""As many as there are kept connections."""

_total_ends_at: ContextVar[float | None] = ContextVar(
    "django_phi_oidc.provider.call_limit", default=None
)


@contextmanager
def limit_total_time(seconds: float) -> Iterator[None]:
    """Let all calls to providers in this block, of this thread, end within that time. It replaces
    an outer limit.
    """
    token = _total_ends_at.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _total_ends_at.reset(token)


def limit_timeout(timeout_seconds: float) -> float:
    """Return timeout_seconds, or what `limit_total_time` leaves of it: 0 or less if its time is
    over.
    """
    ends_at = _total_ends_at.get()
    if ends_at is None:
        return timeout_seconds
    return min(timeout_seconds, ends_at - time.monotonic())


def get_max_background_calls(max_concurrent_calls: int) -> int:
    """Return how many calls of sweeps may run at once. max_concurrent_calls: of the provider's
    declaration.
    """
    return min(BACKGROUND_FACTOR * max_concurrent_calls, MAX_BACKGROUND_CALLS)


class CircuitBreaker:
    """Decides from the results of calls whether further ones may be made. now: seconds of a clock
    that never goes back.

    Only slow failures count: a provider that refuses connections at once costs no thread. Not
    thread-safe.
    """

    def __init__(self) -> None:
        self._failures = 0
        """In a row."""
        self._suspended_until = float("-inf")

    def allows_call(self, now: float) -> bool:
        return self._failures < MAX_FAILURES or now >= self._suspended_until

    def record_start(self, now: float) -> None:
        """Record that a call starts. After a suspension, it is the only one until it ends or hangs
        as long again.
        """
        if self._failures >= MAX_FAILURES:
            self._suspended_until = now + SUSPENSION_SECONDS

    def record_end(self, now: float, *, started_at: float, error_code: RuleCode | None) -> None:
        """Record the result of a call. error_code: of its TransportError; None if there was a
        response.
        """
        is_timeout = error_code is Code.TRANSPORT_TIMEOUT
        if now - started_at >= STALLED_SECONDS and (
            is_timeout or error_code is Code.TRANSPORT_UNREACHABLE
        ):
            self._failures += 1
            self._suspended_until = now + SUSPENSION_SECONDS
        elif not is_timeout:
            # A call with less time says nothing when it times out.
            self._failures = 0


class CallLimit:
    """The running calls to one provider in this process. Threads may share it."""

    def __init__(self, max_calls: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """monotonic: a clock in seconds that never goes back."""
        self._max_calls = {False: max_calls, True: get_max_background_calls(max_calls)}
        self._monotonic = monotonic
        self._breaker = CircuitBreaker()
        self._condition = threading.Condition()
        self._start_times: dict[bool, list[float]] = {False: [], True: []}
        """Of the running calls, oldest first: of requests, and of sweeps."""

    @contextmanager
    def call(self, *, timeout_seconds: float, is_background: bool = False) -> Iterator[float]:
        """Run one call in the block, and yield the seconds that it has left of timeout_seconds.

        Raises: TransportError before the block runs: `provider_suspended`, or `transport_timeout`
        without time left. A TransportError of the block is the result of the call.
        """
        ends_at = self._monotonic() + timeout_seconds
        start_times = self._start_times[is_background]
        started_at = self._wait_for_turn(
            ends_at, start_times, max_calls=self._max_calls[is_background]
        )
        error_code: RuleCode | None = None
        try:
            yield ends_at - started_at
        except TransportError as error:
            error_code = error.code
            raise
        finally:
            with self._condition:
                start_times.remove(started_at)
                self._breaker.record_end(
                    self._monotonic(), started_at=started_at, error_code=error_code
                )
                self._condition.notify_all()

    def _wait_for_turn(self, ends_at: float, start_times: list[float], *, max_calls: int) -> float:
        """Return the time at which the call starts. Raises: TransportError."""
        with self._condition:
            while self._breaker.allows_call(now := self._monotonic()):
                if len(start_times) < max_calls:
                    if now >= ends_at:
                        # Before it counts as a start: after a suspension, only one call tries.
                        raise TransportError(Code.TRANSPORT_TIMEOUT)
                    start_times.append(now)
                    self._breaker.record_start(now)
                    return now
                seconds_left = min(start_times[-1] + STALLED_SECONDS, ends_at) - now
                if seconds_left <= 0:
                    break
                self._condition.wait(seconds_left)
        raise TransportError(Code.PROVIDER_SUSPENDED)
