"""R1: the limit on concurrent calls to a provider, the circuit breaker, and the limit on the calls of a request."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from django_phi_oidc.errors import Code, TransportError
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.http.transport import TransportRequest
from django_phi_oidc.provider.call_limit import (
    MAX_FAILURES,
    MAX_WAIT_SECONDS,
    QUICK_SECONDS,
    RETRY_AFTER,
    SLOW_SECONDS,
    STALLED_SECONDS,
    SUSPENSION_SECONDS,
    CallLimit,
    CircuitBreaker,
    limit_timeout,
    limit_total_time,
)
from tests.support.error_codes import raises
from tests.support.in_memory_provider import Clock
from tests.support.scripted_server import Server, answering, reply, serving, silent

TIMEOUT_SECONDS = 8.0


def call(limit: CallLimit, clock: Clock, *, seconds: float, error: Code | None = None) -> None:
    """Run a call that takes that long."""
    with contextlib.suppress(TransportError), limit.call(timeout_seconds=TIMEOUT_SECONDS):
        clock.now += seconds
        if error is not None:
            raise TransportError(error)


def is_refused(limit: CallLimit) -> bool:
    """Return whether a further call is refused."""
    try:
        with limit.call(timeout_seconds=TIMEOUT_SECONDS):
            return False
    except TransportError as error:
        return error.code is Code.PROVIDER_SUSPENDED


# The limit


@pytest.mark.parametrize(("seconds", "refused"), [(STALLED_SECONDS - 0.1, False), (STALLED_SECONDS + 0.1, True)])
def test_d2_further_call_is_refused_while_all_calls_hang(seconds: float, refused: bool) -> None:
    clock, finished = Clock(), threading.Event()
    limit = CallLimit(2, monotonic=clock)
    with limit.call(timeout_seconds=TIMEOUT_SECONDS), contextlib.ExitStack() as second:
        second.enter_context(limit.call(timeout_seconds=TIMEOUT_SECONDS))
        clock.now += seconds
        # A call that waits for its turn gets it when another one ends.
        outcomes: list[bool] = []
        thread = threading.Thread(target=lambda: (outcomes.append(is_refused(limit)), finished.set()))
        thread.start()
        if refused:
            assert finished.wait(10)
        second.close()
        thread.join(10)
    assert outcomes == [refused]


def test_d2_further_call_runs_when_fewer_calls_hang() -> None:
    clock = Clock()
    limit = CallLimit(2, monotonic=clock)
    with limit.call(timeout_seconds=TIMEOUT_SECONDS):
        clock.now += 60
        assert not is_refused(limit)


def test_d2_waiting_time_is_part_of_the_timeout() -> None:
    limit, started = CallLimit(1), threading.Event()

    def run() -> None:
        with limit.call(timeout_seconds=TIMEOUT_SECONDS):
            started.set()
            time.sleep(QUICK_SECONDS - 0.05)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    with limit.call(timeout_seconds=0.9) as seconds_left:
        assert 0 < seconds_left < 0.85
    thread.join(10)


@contextlib.contextmanager
def running(limit: CallLimit, count: int) -> Iterator[contextlib.ExitStack]:
    """Run that many calls, which end with the block or with `close` of what it yields."""
    with contextlib.ExitStack() as calls:
        for _ in range(count):
            calls.enter_context(limit.call(timeout_seconds=TIMEOUT_SECONDS))
        yield calls


def is_second_call_refused(limit: CallLimit) -> bool:
    """Run a call, and return whether another one is refused at once. Otherwise it runs after the first."""
    outcomes: list[bool] = []
    with running(limit, 1):
        second = threading.Thread(target=lambda: outcomes.append(is_refused(limit)))
        second.start()
        second.join(0.3)
        is_waiting = second.is_alive()
    second.join(10)
    assert outcomes == [not is_waiting]
    return not is_waiting


@pytest.mark.parametrize(("last_seconds", "refused"), [(QUICK_SECONDS - 0.01, False), (QUICK_SECONDS, True)])
def test_s1_call_waits_for_its_turn_only_at_a_quick_provider(last_seconds: float, refused: bool) -> None:
    clock = Clock()
    limit = CallLimit(1, monotonic=clock)
    call(limit, clock, seconds=last_seconds)
    assert is_second_call_refused(limit) is refused


@pytest.mark.parametrize(("idle_seconds", "refused"), [(SLOW_SECONDS - 0.1, True), (SLOW_SECONDS, False)])
def test_s1_slow_call_is_forgotten_after_a_second(idle_seconds: float, refused: bool) -> None:
    clock = Clock()
    limit = CallLimit(1, monotonic=clock)
    call(limit, clock, seconds=2)
    clock.now += idle_seconds
    assert is_second_call_refused(limit) is refused


def test_s1_waiting_calls_are_refused_when_a_quick_provider_becomes_slow() -> None:
    limit, refused_after = CallLimit(1), list[float]()

    def wait() -> None:
        started_at = time.monotonic()
        assert is_refused(limit)
        refused_after.append(time.monotonic() - started_at)

    with running(limit, 1):
        waiters = [threading.Thread(target=wait) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        for waiter in waiters:
            waiter.join(10)
    assert len(refused_after) == 3
    assert max(refused_after) < STALLED_SECONDS


def test_s1_half_as_many_calls_wait_for_a_slow_provider_as_may_run() -> None:
    clock = Clock()
    limit = CallLimit(4, monotonic=clock)
    outcomes: list[bool] = []
    with running(limit, 4):
        clock.now += QUICK_SECONDS
        waiters = [threading.Thread(target=lambda: outcomes.append(is_refused(limit))) for _ in range(2)]
        for waiter in waiters:
            waiter.start()
        time.sleep(0.2)
        assert is_refused(limit), "a third one does not wait"
        assert outcomes == []
    for waiter in waiters:
        waiter.join(10)
    assert outcomes == [False, False]


def test_s1_call_waits_for_its_turn_for_at_most_a_second() -> None:
    limit = CallLimit(1)
    seconds, waited, refused_after = QUICK_SECONDS - 0.05, list[float](), list[float]()

    def run() -> None:
        arrived_at = time.monotonic()
        try:
            with limit.call(timeout_seconds=TIMEOUT_SECONDS):
                waited.append(time.monotonic() - arrived_at)
                time.sleep(seconds)
        except TransportError:
            refused_after.append(time.monotonic() - arrived_at)

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert max(waited) < MAX_WAIT_SECONDS + 0.1
    assert max(refused_after) < MAX_WAIT_SECONDS + 0.5
    assert len(waited) + len(refused_after) == 10


@pytest.mark.parametrize("is_suspended", [False, True])
def test_s1_refusal_says_when_to_try_again(is_suspended: bool) -> None:
    clock = Clock()
    limit = CallLimit(1, monotonic=clock)
    call(limit, clock, seconds=QUICK_SECONDS)
    if is_suspended:
        for _ in range(MAX_FAILURES):
            call(limit, clock, seconds=8, error=Code.TRANSPORT_TIMEOUT)
        clock.now += 5
        with pytest.raises(TransportError) as error, limit.call(timeout_seconds=TIMEOUT_SECONDS):
            pass
        assert error.value.retry_after == timedelta(seconds=SUSPENSION_SECONDS - 5)
    else:
        with running(limit, 1), pytest.raises(TransportError) as error, limit.call(timeout_seconds=TIMEOUT_SECONDS):
            pass
        assert error.value.retry_after == RETRY_AFTER


def test_d2_unexpected_exception_ends_the_call() -> None:
    limit = CallLimit(1, monotonic=Clock())
    with pytest.raises(ZeroDivisionError), limit.call(timeout_seconds=TIMEOUT_SECONDS):
        raise ZeroDivisionError
    assert not is_refused(limit)


def test_s1_interrupted_call_does_not_make_the_breaker_forget_failures() -> None:
    clock = Clock()
    limit = CallLimit(2, monotonic=clock)
    call(limit, clock, seconds=8, error=Code.TRANSPORT_TIMEOUT)
    for seconds in (8, 0.1):
        interrupt(limit, clock, seconds=seconds)
    call(limit, clock, seconds=8, error=Code.TRANSPORT_TIMEOUT)
    assert is_refused(limit)


def interrupt(limit: CallLimit, clock: Clock, *, seconds: float) -> None:
    """Run a call that something other than the provider ends after that time."""
    with contextlib.suppress(ZeroDivisionError), limit.call(timeout_seconds=TIMEOUT_SECONDS):
        clock.now += seconds
        raise ZeroDivisionError


# The circuit breaker


@pytest.mark.parametrize(
    ("error", "seconds", "suspended"),
    [
        (Code.TRANSPORT_TIMEOUT, 8.0, True),
        (Code.TRANSPORT_UNREACHABLE, 8.0, True),
        (Code.TRANSPORT_TIMEOUT, 0.5, False),
        (Code.TRANSPORT_UNREACHABLE, 0.5, False),
        (Code.TRANSPORT_TLS, 8.0, False),
        (None, 8.0, False),
    ],
)
def test_d2_calls_are_suspended_after_slow_failures_only(error: Code | None, seconds: float, suspended: bool) -> None:
    clock = Clock()
    limit = CallLimit(2, monotonic=clock)
    for _ in range(MAX_FAILURES):
        call(limit, clock, seconds=seconds, error=error)
    assert is_refused(limit) is suspended


def test_d2_one_failure_suspends_nothing() -> None:
    clock = Clock()
    limit = CallLimit(2, monotonic=clock)
    for _ in range(3):
        call(limit, clock, seconds=8, error=Code.TRANSPORT_TIMEOUT)
        call(limit, clock, seconds=8)
    assert not is_refused(limit)


def test_d2_one_call_tries_after_the_suspension() -> None:
    breaker = CircuitBreaker()
    for _ in range(MAX_FAILURES):
        breaker.record_end(100, started_at=92, error_code=Code.TRANSPORT_TIMEOUT)
    assert not breaker.allows_call(100 + SUSPENSION_SECONDS - 1)
    assert breaker.allows_call(100 + SUSPENSION_SECONDS)
    breaker.record_start(130)
    assert not breaker.allows_call(131), "only one"
    breaker.record_end(138, started_at=130, error_code=Code.TRANSPORT_TIMEOUT)
    assert not breaker.allows_call(138 + SUSPENSION_SECONDS - 1)
    breaker.record_start(160)
    breaker.record_end(161, started_at=160, error_code=None)
    assert breaker.allows_call(161)


def test_d2_call_with_too_little_time_does_not_end_the_suspension() -> None:
    breaker = CircuitBreaker()
    for _ in range(MAX_FAILURES):
        breaker.record_end(100, started_at=92, error_code=Code.TRANSPORT_TIMEOUT)
    breaker.record_start(130)
    breaker.record_end(130.1, started_at=130, error_code=Code.TRANSPORT_TIMEOUT)
    assert not breaker.allows_call(131)


def test_d2_call_without_time_left_is_not_the_one_that_tries_after_the_suspension() -> None:
    clock = Clock()
    limit = CallLimit(2, monotonic=clock)
    for _ in range(MAX_FAILURES):
        call(limit, clock, seconds=8, error=Code.TRANSPORT_TIMEOUT)
    clock.now += SUSPENSION_SECONDS
    with pytest.raises(TransportError) as error, limit.call(timeout_seconds=0):
        pass
    assert error.value.code is Code.TRANSPORT_TIMEOUT
    assert not is_refused(limit)


def test_d2_suspension_takes_between_ten_and_thirty_seconds() -> None:
    assert 10 <= SUSPENSION_SECONDS <= 30


# The limit of a request


def test_d2_total_time_shortens_timeouts_in_its_block_only() -> None:
    assert limit_timeout(8) == 8
    with limit_total_time(5):
        assert 4 < limit_timeout(8) <= 5
        assert limit_timeout(2) == 2
        with limit_total_time(60):
            assert limit_timeout(8) == 8
        with limit_total_time(0):
            assert limit_timeout(8) <= 0
    assert limit_timeout(8) == 8


# Over sockets


def get(server: Server) -> TransportRequest:
    return TransportRequest(method="GET", url=server.url, headers={})


@pytest.fixture
def hanging(open_transport: Callable[..., HTTPTransport]) -> Iterator[tuple[HTTPTransport, Server]]:
    """Return a transport with two calls that hang, and their server."""
    with serving(silent) as server:
        transport = open_transport(allow_loopback_http=True)
        results: list[Code] = []

        def hang() -> None:
            with pytest.raises(TransportError) as caught:
                transport.send(get(server), timeout_seconds=2.5)
            results.append(caught.value.code)

        threads = [threading.Thread(target=hang) for _ in range(2)]
        for thread in threads:
            thread.start()
        while len(server.requests) < 2:
            time.sleep(0.01)
        yield transport, server
        for thread in threads:
            thread.join(10)
        assert results == [Code.TRANSPORT_TIMEOUT] * 2


def test_d2_third_call_to_a_silent_provider_is_refused_and_not_sent(hanging: tuple[HTTPTransport, Server]) -> None:
    transport, server = hanging
    time.sleep(STALLED_SECONDS)
    started_at = time.monotonic()
    with raises(Code.PROVIDER_SUSPENDED):
        transport.send(get(server), timeout_seconds=8)
    assert time.monotonic() - started_at < 0.5, "at once"
    assert server.accepted == 2


def test_d2_no_call_is_made_after_two_timeouts_but_to_other_providers(
    open_transport: Callable[..., HTTPTransport],
) -> None:
    with serving(silent) as server, serving(answering(reply())) as other_server:
        transport = open_transport(allow_loopback_http=True)
        for code in (*[Code.TRANSPORT_TIMEOUT] * 2, Code.PROVIDER_SUSPENDED):
            with raises(code):
                transport.send(get(server), timeout_seconds=STALLED_SECONDS + 0.1)
        assert server.accepted == 2
        assert open_transport(allow_loopback_http=True).send(get(other_server), timeout_seconds=5).status == 200


def test_d2_many_quick_calls_at_once_are_all_answered(open_transport: Callable[..., HTTPTransport]) -> None:
    with serving(answering(reply())) as server:
        transport, statuses = open_transport(allow_loopback_http=True), []
        threads = [
            threading.Thread(target=lambda: statuses.append(transport.send(get(server), timeout_seconds=10).status))
            for _ in range(32)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert statuses == [200] * 32


def test_d2_total_time_limits_a_call(open_transport: Callable[..., HTTPTransport]) -> None:
    with serving(silent) as server, limit_total_time(0.5):
        transport, started_at = open_transport(allow_loopback_http=True), time.monotonic()
        for _ in range(2):
            with raises(Code.TRANSPORT_TIMEOUT):
                transport.send(get(server), timeout_seconds=8)
        assert time.monotonic() - started_at < 4
