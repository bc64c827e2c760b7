"""R2: the cache of metadata and keys, with a clock that the test sets."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code, KeyNotFound, PhiOidcError, TransportError
from django_phi_oidc.http.transport import TransportRequest, TransportResponse
from django_phi_oidc.provider.call_limit import QUICK_SECONDS, SLOW_SECONDS
from django_phi_oidc.provider.metadata_cache import CachedDocument, TokenSource, parse_freshness_seconds
from django_phi_oidc.provider.registry import Provider
from tests.support.error_codes import raises
from tests.support.in_memory_provider import ISSUER, JWKS, METADATA, Clock, FakeOP

HOUR = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def op() -> Iterator[FakeOP]:
    fake = FakeOP()
    yield fake
    fake.gate.set()


@pytest.fixture
def provider(declare: Callable[..., ProviderDeclaration], op: FakeOP, clock: Clock) -> Provider:
    return Provider(declaration=declare(issuer=ISSUER), transport=op, monotonic=clock)


def find(provider: Provider, kid: str) -> str | None:
    return provider.get_key_set(timeout_seconds=5).get_key(kid=kid, alg="EdDSA").kid


def in_threads(count: int, function: Callable[[], Any]) -> tuple[list[threading.Thread], list[Any]]:
    outcomes: list[Any] = []

    def run() -> None:
        try:
            outcomes.append(function())
        except PhiOidcError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, outcomes


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


# Freshness


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        ("", 300),
        ("public", 300),
        ("max-age=0", 300),
        ("max-age=299", 300),
        ("max-age=301", 301),
        ("public, max-age=3600, must-revalidate", 3600),
        ("public,max-age=3600", 3600),
        ("MAX-AGE=3600", 3600),
        ('max-age="3600"', 3600),
        ("max-age=86399", 86399),
        ("max-age=86401", 86400),
        ("max-age=" + "9" * 5000, 86400),
        ("max-age=" + "0" * 5000, 300),
        ("max-age=-3600", 300),
        ("max-age=soon", 300),
        ("max-age=٣٦٠٠", 300),
        ("x-max-age=3600", 300),
        ("s-maxage=3600", 300),
        ("no-store, max-age=3600", 300),
        ("max-age=3600, no-cache", 300),
    ],
)
def test_freshness_is_between_five_minutes_and_a_day(cache_control: str, seconds: float) -> None:
    assert parse_freshness_seconds({"cache-control": cache_control}) == seconds
    assert parse_freshness_seconds({}) == 300


@pytest.mark.parametrize(("cache_control", "seconds"), [("max-age=3600", 3600), ("", 300), ("max-age=9999999", 86400)])
def test_metadata_and_keys_are_fetched_again_only_when_stale(
    provider: Provider, op: FakeOP, clock: Clock, cache_control: str, seconds: float
) -> None:
    op.cache_control = cache_control
    for _ in range(3):
        assert provider.get_metadata(timeout_seconds=5).token_endpoint == f"{ISSUER}/token"
        assert find(provider, "a") == "a"
    clock.now += seconds - 1
    find(provider, "a")
    assert op.sent == [METADATA, JWKS]
    clock.now += 2
    op.metadata = {"token_endpoint": f"{ISSUER}/token2"}
    assert find(provider, "a") == "a"
    assert provider.get_metadata(timeout_seconds=5).token_endpoint == f"{ISSUER}/token2"
    assert op.sent == [METADATA, JWKS] * 2


def test_timeout_is_passed_to_each_fetch(provider: Provider, op: FakeOP) -> None:
    provider.get_key_set(timeout_seconds=1.5)
    assert op.timeouts == [1.5, 1.5]


def test_key_fetch_gets_the_remaining_time(declare: Callable[..., ProviderDeclaration], clock: Clock) -> None:
    class Slow(FakeOP):
        def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
            clock.now += 2.0
            return super().send(request, timeout_seconds=timeout_seconds)

    op = Slow()
    Provider(declaration=declare(issuer=ISSUER), transport=op, monotonic=clock).get_key_set(timeout_seconds=5.0)
    assert op.sent == [METADATA, JWKS]
    assert op.timeouts == [5.0, 3.0]


# Failures


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"metadata": {"issuer": "https://elsewhere.test"}}, Code.ISSUER_MISMATCH),
        ({"metadata": {"token_endpoint": 1}}, Code.METADATA_INVALID),
        ({"status": 404}, Code.METADATA_INVALID),
        ({"status": 503}, Code.PROVIDER_UNAVAILABLE),
        ({"error": TransportError(Code.TRANSPORT_UNREACHABLE)}, Code.TRANSPORT_UNREACHABLE),
    ],
    ids=["issuer", "invalid", "status", "outage", "unreachable"],
)
def test_refused_metadata_is_not_cached(
    provider: Provider, op: FakeOP, fault: dict[str, Any], error: type[PhiOidcError]
) -> None:
    valid = {name: getattr(op, name) for name in fault}
    for name, value in fault.items():
        setattr(op, name, value)
    for _ in range(2):
        with raises(error):
            provider.get_metadata(timeout_seconds=5)
    assert op.count(METADATA) == 2
    for name, value in valid.items():
        setattr(op, name, value)
    assert provider.get_metadata(timeout_seconds=5).issuer == ISSUER
    provider.get_metadata(timeout_seconds=5)
    assert op.count(METADATA) == 3


@pytest.mark.parametrize(
    "fault", [{"error": TransportError(Code.TRANSPORT_TIMEOUT)}, {"status": 500}], ids=["unreachable", "status"]
)
def test_stale_metadata_is_used_for_an_hour_while_the_provider_is_unreachable(
    provider: Provider, op: FakeOP, clock: Clock, fault: dict[str, Any]
) -> None:
    op.cache_control = "max-age=600"
    assert find(provider, "a") == "a"
    for name, value in fault.items():
        setattr(op, name, value)
    clock.now += 600 + HOUR - 1
    assert provider.get_metadata(timeout_seconds=5).issuer == ISSUER
    assert find(provider, "a") == "a"
    clock.now += 2
    with raises((Code.TRANSPORT_TIMEOUT, Code.PROVIDER_UNAVAILABLE)):
        provider.get_metadata(timeout_seconds=5)
    with raises((Code.TRANSPORT_TIMEOUT, Code.PROVIDER_UNAVAILABLE)):
        find(provider, "a")


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({"issuer": "https://elsewhere.test"}, Code.ISSUER_MISMATCH),
        ({"subject_types_supported": ["public"]}, Code.PAIRWISE_UNSUPPORTED),
        ({"jwks_uri": 1}, Code.METADATA_INVALID),
    ],
)
def test_d4_metadata_that_turned_bad_do_not_replace_a_good_copy_and_are_fetched_twice_a_minute(
    metadata: dict[str, Any], code: Code, provider: Provider, op: FakeOP, clock: Clock
) -> None:
    provider.get_metadata(timeout_seconds=5)
    clock.now += HOUR + 1
    op.metadata = metadata
    for _ in range(5):
        assert provider.get_metadata(timeout_seconds=5).issuer == ISSUER
    assert op.count(METADATA) == 2
    clock.now += HOUR
    for _ in range(5):
        with raises(code):
            provider.get_metadata(timeout_seconds=5)
    assert op.count(METADATA) == 3, "also when the good copy is too old"
    op.metadata = {}
    clock.now += 31
    assert provider.get_metadata(timeout_seconds=5).issuer == ISSUER


@pytest.mark.parametrize("change", [{"kids": []}, {"use": "enc"}], ids=["empty", "no signing key"])
def test_d4_key_set_without_a_usable_key_does_not_replace_a_good_copy(
    change: dict[str, Any], provider: Provider, op: FakeOP, clock: Clock
) -> None:
    op.cache_control = "max-age=600"
    assert find(provider, "a") == "a"
    for name, value in change.items():
        setattr(op, name, value)
    with raises(KeyNotFound) as caught:
        find(provider, "b")
    assert not caught.value.is_certain
    assert find(provider, "a") == "a", "after a refetch"
    clock.now += 601
    assert [find(provider, "a") for _ in range(5)] == ["a"] * 5, "after it is no longer fresh"
    assert op.count(JWKS) == 3
    op.kids, op.use = ["c"], "sig"
    clock.now += 31
    assert find(provider, "c") == "c"


def test_d4_first_key_set_without_a_usable_key_is_refused(provider: Provider, op: FakeOP) -> None:
    op.kids = []
    with raises(Code.KEY_NOT_FOUND):
        provider.get_key_set(timeout_seconds=5)
    op.kids = ["a"]
    assert find(provider, "a") == "a"


def test_failed_refresh_is_not_repeated_for_thirty_seconds(provider: Provider, op: FakeOP, clock: Clock) -> None:
    provider.get_metadata(timeout_seconds=5)
    clock.now += HOUR + 1
    op.error = TransportError(Code.TRANSPORT_UNREACHABLE)
    for _ in range(5):
        assert provider.get_metadata(timeout_seconds=5).issuer == ISSUER
    assert op.count(METADATA) == 2
    clock.now += 29
    provider.get_metadata(timeout_seconds=5)
    assert op.count(METADATA) == 2
    clock.now += 2
    op.error, op.metadata = None, {"token_endpoint": f"{ISSUER}/token2"}
    assert provider.get_metadata(timeout_seconds=5).token_endpoint == f"{ISSUER}/token2"
    assert op.count(METADATA) == 3


# Unknown kid


def test_unknown_kid_refetches_the_keys(provider: Provider, op: FakeOP) -> None:
    assert find(provider, "a") == "a"
    op.kids = ["a", "b"]
    assert find(provider, "b") == "b"
    assert find(provider, "a") == "a"
    assert op.count(JWKS) == 2


def test_unknown_kid_refetches_once_in_thirty_seconds(provider: Provider, op: FakeOP, clock: Clock) -> None:
    for kid in ("b", "c", "d", "e", "f"):
        with raises(KeyNotFound):
            find(provider, kid)
    assert op.count(JWKS) == 2
    op.kids = ["f"]
    clock.now += 29
    with raises(KeyNotFound):
        find(provider, "f")
    assert op.count(JWKS) == 2
    clock.now += 2
    assert find(provider, "f") == "f"
    assert op.count(JWKS) == 3


def test_d4_unknown_kid_of_a_stranger_does_not_delay_a_token_of_the_provider(provider: Provider, op: FakeOP) -> None:
    def find_for_sign_in(kid: str) -> str | None:
        return provider.get_key_set(timeout_seconds=5, source="provider").get_key(kid=kid, alg="EdDSA").kid

    with raises(KeyNotFound):
        find(provider, "made up")
    op.kids = ["rotated"]
    assert find_for_sign_in("rotated") == "rotated"
    assert op.count(JWKS) == 3
    for _ in range(3):
        with raises(KeyNotFound):
            find_for_sign_in("other")
    assert op.count(JWKS) == 3, "it has a limit of its own"


def test_s3_token_of_the_provider_whose_key_is_published_later_delays_sign_ins_for_a_second(
    provider: Provider, op: FakeOP, clock: Clock
) -> None:
    def find_for_sign_in(kid: str) -> str | None:
        return provider.get_key_set(timeout_seconds=5, source="provider").get_key(kid=kid, alg="EdDSA").kid

    with raises(KeyNotFound):
        find_for_sign_in("new")
    op.kids = ["new"]
    clock.now += 0.9
    with raises(KeyNotFound):
        find_for_sign_in("new")
    clock.now += 0.2
    assert find_for_sign_in("new") == "new"


@pytest.mark.parametrize(
    ("source", "times"),
    [("provider", [0, 1, 3, 7, 15, 31, 61, 91, 122, 123]), ("anyone", [0, 30, 60, 90, 120])],
)
def test_s3_time_between_refetches_doubles_up_to_thirty_seconds(
    source: TokenSource, times: list[int], provider: Provider, op: FakeOP, clock: Clock
) -> None:
    started_at, refetched_at = clock.now, []
    provider.get_key_set(timeout_seconds=5)
    for second in range(125):
        if 92 <= second < 122 and source == "provider":
            # No token with an unknown key comes for more than 30 s.
            continue
        clock.now = started_at + second
        before = op.count(JWKS)
        with raises(KeyNotFound):
            provider.get_key_set(timeout_seconds=5, source=source).get_key(kid="unknown", alg="EdDSA")
        if op.count(JWKS) > before:
            refetched_at.append(second)
    assert refetched_at == times


def test_s3_failed_refetch_for_a_token_of_the_provider_counts(provider: Provider, op: FakeOP, clock: Clock) -> None:
    find(provider, "a")
    op.error = TransportError(Code.TRANSPORT_UNREACHABLE)
    before = op.count(JWKS)
    for _ in range(3):
        with raises(KeyNotFound):
            provider.get_key_set(timeout_seconds=5, source="provider").get_key(kid="b", alg="EdDSA")
    assert op.count(JWKS) == before + 1


def test_failed_refetch_counts_and_keeps_the_old_keys(provider: Provider, op: FakeOP, clock: Clock) -> None:
    find(provider, "a")
    op.error = TransportError(Code.TRANSPORT_TIMEOUT)
    for _ in range(3):
        with raises(KeyNotFound):
            find(provider, "b")
        assert find(provider, "a") == "a"
    assert op.count(JWKS) == 2
    op.error, op.kids = None, ["b"]
    clock.now += 31
    assert find(provider, "b") == "b"


def test_invalid_refetched_keys_keep_the_old_ones(provider: Provider, op: FakeOP) -> None:
    find(provider, "a")
    op.status = 404
    with raises(KeyNotFound, match="metadata_invalid"):
        find(provider, "b")
    assert find(provider, "a") == "a"


def test_earlier_key_set_sees_refetched_keys(provider: Provider, op: FakeOP) -> None:
    key_set = provider.get_key_set(timeout_seconds=5)
    op.kids = ["b"]
    assert key_set.get_key(kid="b", alg="EdDSA").kid == "b"


def test_refetch_of_an_already_replaced_copy_fetches_nothing(clock: Clock) -> None:
    fetched: list[str] = []

    def fetch(timeout_seconds: float) -> tuple[str, float]:
        fetched.append(f"document {len(fetched)}")
        return fetched[-1], HOUR

    cached = CachedDocument(fetch, monotonic=clock)
    first = cached.get(timeout_seconds=5)
    second = cached.refetch(outdated=first, source="anyone", timeout_seconds=5)
    clock.now += 31
    assert cached.refetch(outdated=first, source="anyone", timeout_seconds=5) == second == "document 1"
    assert cached.refetch(outdated=second, source="anyone", timeout_seconds=5) == "document 2"


# Threads


def test_first_fetch_is_shared_by_waiting_threads(provider: Provider, op: FakeOP) -> None:
    op.gate.clear()
    threads, outcomes = in_threads(8, lambda: provider.get_metadata(timeout_seconds=5).issuer)
    assert op.received.acquire(timeout=5)
    assert outcomes == []
    op.gate.set()
    join(threads)
    assert outcomes == [ISSUER] * 8
    assert op.count(METADATA) == 1


def test_wait_for_another_fetch_times_out(provider: Provider, op: FakeOP) -> None:
    op.gate.clear()
    threads, outcomes = in_threads(1, lambda: provider.get_metadata(timeout_seconds=5).issuer)
    assert op.received.acquire(timeout=5)
    with raises(Code.TRANSPORT_TIMEOUT):
        provider.get_metadata(timeout_seconds=0.1)
    op.gate.set()
    join(threads)
    assert outcomes == [ISSUER]


def test_thread_with_more_time_fetches_again_after_a_shorter_timeout(
    declare: Callable[..., ProviderDeclaration],
) -> None:
    """A sign-out waits a tenth of a second for the provider. Sign-ins that wait for its fetch have eight seconds."""

    class Slow(FakeOP):
        def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
            answer = super().send(request, timeout_seconds=timeout_seconds)
            if timeout_seconds < 1:
                raise TransportError(Code.TRANSPORT_TIMEOUT)
            return answer

    op = Slow()
    provider = Provider(declaration=declare(issuer=ISSUER), transport=op)
    op.gate.clear()
    short, short_outcomes = in_threads(1, lambda: provider.get_metadata(timeout_seconds=0.1))
    assert op.received.acquire(timeout=5)
    waiting, outcomes = in_threads(4, lambda: provider.get_metadata(timeout_seconds=5).issuer)
    time.sleep(0.1)  # so that they wait for the fetch in progress
    op.gate.set()
    join([*short, *waiting])
    assert [outcome.code for outcome in short_outcomes] == [Code.TRANSPORT_TIMEOUT]
    assert outcomes == [ISSUER] * 4
    assert op.count(METADATA) == 2


def test_d2_nothing_waits_for_a_fetch_that_hangs(declare: Callable[..., ProviderDeclaration], op: FakeOP) -> None:
    provider = Provider(declaration=declare(issuer=ISSUER), transport=op)
    op.gate.clear()
    threads, outcomes = in_threads(1, lambda: provider.get_metadata(timeout_seconds=8).issuer)
    assert op.received.acquire(timeout=5)
    waiting, refused = in_threads(4, lambda: provider.get_metadata(timeout_seconds=8).issuer)
    join(waiting)
    assert [error.code for error in refused] == [Code.PROVIDER_SUSPENDED] * 4
    assert outcomes == []
    op.gate.set()
    join(threads)
    assert outcomes == [ISSUER]
    assert provider.get_metadata(timeout_seconds=8).issuer == ISSUER


def test_s1_one_thread_waits_for_a_slow_fetch(provider: Provider, op: FakeOP, clock: Clock) -> None:
    op.gate.clear()
    fetching, _ = in_threads(1, lambda: provider.get_metadata(timeout_seconds=8).issuer)
    assert op.received.acquire(timeout=5)
    waiting, issuers = in_threads(1, lambda: provider.get_metadata(timeout_seconds=8).issuer)
    time.sleep(0.1)  # so that it is the first one
    clock.now += QUICK_SECONDS
    with raises(Code.PROVIDER_SUSPENDED):
        provider.get_metadata(timeout_seconds=8)
    assert issuers == []
    op.gate.set()
    join([*fetching, *waiting])
    assert issuers == [ISSUER]


def test_s1_thread_that_stops_waiting_leaves_its_place(provider: Provider, op: FakeOP, clock: Clock) -> None:
    op.gate.clear()
    fetching, _ = in_threads(1, lambda: provider.get_metadata(timeout_seconds=8).issuer)
    assert op.received.acquire(timeout=5)
    clock.now += QUICK_SECONDS
    with raises(Code.TRANSPORT_TIMEOUT):
        provider.get_metadata(timeout_seconds=0.05)
    waiting, issuers = in_threads(1, lambda: provider.get_metadata(timeout_seconds=8).issuer)
    time.sleep(0.1)  # so that it waits
    op.gate.set()
    join([*fetching, *waiting])
    assert issuers == [ISSUER]


@pytest.mark.parametrize(
    ("seconds", "idle_seconds", "refused"),
    [(QUICK_SECONDS - 0.01, 0, False), (QUICK_SECONDS, 0, True), (QUICK_SECONDS, SLOW_SECONDS, False)],
)
def test_s1_second_thread_waits_for_a_fetch_unless_the_last_one_was_slow(
    seconds: float, idle_seconds: float, refused: bool, provider: Provider, op: FakeOP, clock: Clock
) -> None:
    def fetch() -> None:
        with contextlib.suppress(TransportError):
            provider.get_metadata(timeout_seconds=8)

    op.error = TransportError(Code.TRANSPORT_UNREACHABLE)
    op.gate.clear()
    first, _ = in_threads(1, fetch)
    assert op.received.acquire(timeout=5)
    clock.now += seconds
    op.gate.set()
    join(first)
    clock.now += idle_seconds
    op.error = None
    op.gate.clear()
    fetching, _ = in_threads(1, fetch)
    assert op.received.acquire(timeout=5)
    waiting, _ = in_threads(1, fetch)
    time.sleep(0.1)  # so that it is the first one
    second, outcomes = in_threads(1, lambda: provider.get_metadata(timeout_seconds=8).issuer)
    second[0].join(0.1)
    assert second[0].is_alive() is not refused
    op.gate.set()
    join([*fetching, *waiting, *second])
    if refused:
        assert [error.code for error in outcomes] == [Code.PROVIDER_SUSPENDED]
    else:
        assert outcomes == [ISSUER]


def test_fetch_error_reaches_all_waiting_threads(provider: Provider, op: FakeOP) -> None:
    op.gate.clear()
    op.error = TransportError(Code.TRANSPORT_UNREACHABLE)
    threads, outcomes = in_threads(1, lambda: provider.get_metadata(timeout_seconds=5))
    assert op.received.acquire(timeout=5)
    waiting, waiting_outcomes = in_threads(4, lambda: provider.get_metadata(timeout_seconds=5))
    op.gate.set()
    join([*threads, *waiting])
    outcomes += waiting_outcomes
    assert {outcome.code for outcome in outcomes} == {Code.TRANSPORT_UNREACHABLE}
    assert len({id(outcome) for outcome in outcomes}) == 5


def test_stale_copy_is_served_while_one_thread_fetches(provider: Provider, op: FakeOP, clock: Clock) -> None:
    provider.get_metadata(timeout_seconds=5)
    assert op.received.acquire(timeout=5)
    clock.now += HOUR + 1
    op.metadata = {"token_endpoint": f"{ISSUER}/token2"}
    op.gate.clear()
    threads, outcomes = in_threads(1, lambda: provider.get_metadata(timeout_seconds=5).token_endpoint)
    assert op.received.acquire(timeout=5)
    assert [provider.get_metadata(timeout_seconds=0.1).token_endpoint for _ in range(3)] == [f"{ISSUER}/token"] * 3
    op.gate.set()
    join(threads)
    assert outcomes == [f"{ISSUER}/token2"]
    assert op.count(METADATA) == 2


def test_refetch_for_an_unknown_kid_is_shared_by_waiting_threads(provider: Provider, op: FakeOP) -> None:
    keys = provider.get_key_set(timeout_seconds=5)
    while op.received.acquire(blocking=False):
        pass
    op.kids = ["b"]
    op.gate.clear()
    threads, outcomes = in_threads(8, lambda: keys.get_key(kid="b", alg="EdDSA").kid)
    assert op.received.acquire(timeout=5)
    assert keys.get_key(kid="a", alg="EdDSA").kid == "a"
    op.gate.set()
    join(threads)
    assert outcomes == ["b"] * 8
    assert op.count(JWKS) == 2


def test_unexpected_fetch_error_releases_the_cache(provider: Provider, op: FakeOP) -> None:
    op.metadata = {"unserialisable": object()}
    with raises(TypeError):
        provider.get_metadata(timeout_seconds=5)
    op.metadata = {}
    assert provider.get_metadata(timeout_seconds=5).issuer == ISSUER
