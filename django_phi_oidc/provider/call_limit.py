"""R1: limits on the calls to one provider, so that a provider that hangs does not take the threads
of the portal along.

Three limits, for each provider and process:
- At most `max_concurrent_calls` run at once. A further call waits for its turn only while the
  provider is quick. While it is slow, at most half as many calls wait as may run, and the others
  are refused at once: a request that waits holds a thread of the portal as a call does.
- After MAX_FAILURES calls in a row that failed that slowly, no call is made for SUSPENSION_SECONDS.
  Then one tries.
- `limit_total_time` limits the calls of one request together.
Calls of a sweep occupy its own threads and no thread of the portal. They are counted apart,
BACKGROUND_FACTOR times as many may run at once, and the failures of both kinds count together.
A call that is refused was not sent, so it can be repeated.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta

from ..errors import Code, RuleCode, TransportError

QUICK_SECONDS = 0.25
"""The provider is slow while a running call takes longer."""
SLOW_SECONDS = 1.0
"""After a call that took longer, the provider counts as slow for this time."""
MAX_WAIT_SECONDS = 1.0
"""A call waits no longer for its turn."""
STALLED_SECONDS = 1.0
"""A call that has waited for longer does not count as progress."""
RETRY_AFTER = timedelta(seconds=2)
"""When a refused call may have its turn, unless the provider is suspended for longer."""
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

    def get_suspension_seconds(self, now: float) -> float:
        """Return for how long no call is made; 0 if one may be made."""
        if self.allows_call(now):
            return 0.0
        return self._suspended_until - now

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


@dataclass(slots=True, kw_only=True)
class _Calls:
    """The calls of requests, or of sweeps, that run or wait for their turn. Not thread-safe."""

    max_running: int
    max_waiting: int
    """While the provider is slow."""
    start_times: list[float] = field(default_factory=list)
    """Of the running calls, oldest first."""
    waiters: list[object] = field(default_factory=list)
    """In the order in which they get their turns."""
    slow_until: float = -math.inf

    def has_turn(self, waiter: object) -> bool:
        return self.waiters.index(waiter) < self.max_running - len(self.start_times)

    def find_refusal_time(self, waiter: object, now: float) -> float:
        """Return the time from which that waiter is refused. Requires: it has no turn."""
        if not self.start_times:
            # The waiters before it are about to start.
            return math.inf
        refused_at = self.start_times[-1] + STALLED_SECONDS
        if self.waiters.index(waiter) < self.max_waiting:
            return refused_at
        if now < self.slow_until:
            return now
        return min(refused_at, self.start_times[0] + QUICK_SECONDS)


class CallLimit:
    """The running calls to one provider in this process. Threads may share it."""

    def __init__(self, max_calls: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """monotonic: a clock in seconds that never goes back."""
        self._monotonic = monotonic
        self._breaker = CircuitBreaker()
        self._condition = threading.Condition()
        self._calls = _Calls(max_running=max_calls, max_waiting=max_calls // 2)
        background_calls = get_max_background_calls(max_calls)
        # Their threads are no threads of the portal.
        self._background_calls = _Calls(max_running=background_calls, max_waiting=background_calls)

    @contextmanager
    def call(self, *, timeout_seconds: float, is_background: bool = False) -> Iterator[float]:
        """Run one call in the block, and yield the seconds that it has left of timeout_seconds.

        Raises: TransportError before the block runs: `provider_suspended`, or `transport_timeout`
        without time left. A TransportError of the block is the result of the call. Another
        exception, such as the time limit of a task, says nothing about the provider.
        """
        ends_at = self._monotonic() + timeout_seconds
        calls = self._calls
        if is_background:
            calls = self._background_calls
        started_at = self._wait_for_turn(ends_at, calls)
        error_code: RuleCode | None = None
        is_interrupted = False
        try:
            yield ends_at - started_at
        except TransportError as error:
            error_code = error.code
            raise
        except BaseException:
            is_interrupted = True
            raise
        finally:
            with self._condition:
                now = self._monotonic()
                calls.start_times.remove(started_at)
                if now - started_at >= QUICK_SECONDS:
                    calls.slow_until = now + SLOW_SECONDS
                if not is_interrupted:
                    self._breaker.record_end(now, started_at=started_at, error_code=error_code)
                self._condition.notify_all()

    def _wait_for_turn(self, ends_at: float, calls: _Calls) -> float:
        """Return the time at which the call starts. Raises: TransportError."""
        waiter = object()
        with self._condition:
            calls.waiters.append(waiter)
            try:
                now = self._monotonic()
                gives_up_at = min(ends_at, now + MAX_WAIT_SECONDS)
                while self._breaker.allows_call(now):
                    if calls.has_turn(waiter):
                        if now >= ends_at:
                            # Before it counts as a start: after a suspension, only one call tries.
                            raise TransportError(Code.TRANSPORT_TIMEOUT)
                        calls.start_times.append(now)
                        self._breaker.record_start(now)
                        return now
                    seconds_left = min(gives_up_at, calls.find_refusal_time(waiter, now)) - now
                    if seconds_left <= 0:
                        break
                    self._condition.wait(seconds_left)
                    now = self._monotonic()
                suspended_seconds = self._breaker.get_suspension_seconds(now)
                raise create_suspension_error(suspended_seconds=suspended_seconds)
            finally:
                calls.waiters.remove(waiter)
                self._condition.notify_all()


def create_suspension_error(*, suspended_seconds: float = 0.0) -> TransportError:
    """Return the error of a call that is not sent now. suspended_seconds: until one may be sent."""
    error = TransportError(Code.PROVIDER_SUSPENDED)
    error.retry_after = max(RETRY_AFTER, timedelta(seconds=suspended_seconds))
    return error
