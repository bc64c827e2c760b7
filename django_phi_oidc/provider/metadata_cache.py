"""R2: how long metadata and keys of a provider are valid, and which thread fetches them again.

The cache is process memory, never a shared cache: a poisoned cache would be a forged key.
"""

import copy
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from ..errors import Code, KeyNotFound, MetadataError, SignInRefused, TransportError
from ..oidc.jwks import JSONWebKeySet, VerificationKey
from .call_limit import QUICK_SECONDS, SLOW_SECONDS, STALLED_SECONDS, create_suspension_error

MIN_FRESH_SECONDS = 5 * 60
MAX_FRESH_SECONDS = 24 * 60 * 60
STALE_IF_ERROR_SECONDS = 60 * 60
"""How long a copy that is no longer fresh may be used while the provider is unreachable or its
document invalid.
"""
REFETCH_COOLDOWN_SECONDS = 30
"""Between two refetches for an unknown kid of one source, and after a refetch that failed."""
FIRST_PROVIDER_COOLDOWN_SECONDS = 1
"""After the first refetch for a token of the provider, whose new key may be published a moment
later. Each further refetch doubles it, up to REFETCH_COOLDOWN_SECONDS.
"""

TokenSource = Literal["provider", "anyone"]
"""Who sent a token: the provider, in a response to this process, or any client."""

_MAX_AGE = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?([0-9]+)', re.IGNORECASE)
_UNSTORABLE = re.compile(r"(?:^|[\s,])no-(?:store|cache)\b", re.IGNORECASE)

T = TypeVar("T")
Fetch = Callable[[float], tuple[T, float]]
"""Takes a timeout in seconds, returns the validated document and for how many seconds it is
fresh.
"""


def parse_freshness_seconds(headers: Mapping[str, str]) -> float:
    """Return for how many seconds a response with these headers is fresh: between 5 minutes and 24
    hours.

    A `no-store` response gets the minimum, otherwise each sign-in would need a fetch. Age and
    Expires are not read.
    Spec: RFC 9111 5.2.2.1.
    """
    cache_control = headers.get("cache-control", "")
    max_age = _MAX_AGE.search(cache_control)
    if max_age is None or _UNSTORABLE.search(cache_control):
        return MIN_FRESH_SECONDS
    # Limit the digits: int() raises ValueError for thousands of them.
    digits = max_age[1].lstrip("0")
    if len(digits) < 9:
        seconds = int(digits or 0)
    else:
        seconds = MAX_FRESH_SECONDS

    return max(MIN_FRESH_SECONDS, min(seconds, MAX_FRESH_SECONDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class _CachedCopy(Generic[T]):
    value: T
    fresh_until: float
    valid_until: float
    """The end of use, even while the provider is unreachable."""

    def is_usable(self, now: float, error: SignInRefused | None) -> bool:
        """Return whether the copy may be used after that error of the latest fetch.

        A document that states its own expiry is used until then while no other one can be fetched,
        but only for STALE_IF_ERROR_SECONDS while an invalid one is published: the former may be
        revoked.
        """
        is_recent = now < self.fresh_until + STALE_IF_ERROR_SECONDS
        return now < self.valid_until and (is_recent or not isinstance(error, MetadataError))


class _FetchInProgress(Generic[T]):
    """A fetch that other threads may wait for."""

    def __init__(self, *, started_at: float, ends_at: float) -> None:
        self.started_at = started_at
        self.ends_at = ends_at
        self.finished = threading.Event()
        self.has_waiter = False
        """Whether a thread waits that may wait for a slow fetch."""
        self.fetched_copy: _CachedCopy[T] | None = None
        self.error: SignInRefused | None = None


class _RefetchLimit:
    """The time between refetches for the tokens of one source. Not thread-safe."""

    def __init__(self, *, first_cooldown_seconds: float) -> None:
        self._first_cooldown_seconds = first_cooldown_seconds
        self._cooldown_seconds = first_cooldown_seconds
        self._last_at = float("-inf")

    def allows_refetch(self, now: float) -> bool:
        return now >= self._last_at + self._cooldown_seconds

    def record_refetch(self, now: float) -> None:
        if now > self._last_at + REFETCH_COOLDOWN_SECONDS:
            self._cooldown_seconds = self._first_cooldown_seconds
        else:
            self._cooldown_seconds = min(2 * self._cooldown_seconds, REFETCH_COOLDOWN_SECONDS)
        self._last_at = now


class CachedDocument(Generic[T]):
    """One document of a provider. Only a valid copy replaces a valid copy, and one thread at a time
    fetches.
    """

    def __init__(
        self,
        fetch: Fetch[T],
        *,
        monotonic: Callable[[], float],
        find_validity_seconds: Callable[[T], float | None] = lambda value: None,
    ) -> None:
        """monotonic: a clock in seconds that never goes back.

        find_validity_seconds: how much longer a document is valid; None if it does not state that:
        it is used for STALE_IF_ERROR_SECONDS after it is no longer fresh.
        """
        self._fetch = fetch
        self._find_validity_seconds = find_validity_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._copy: _CachedCopy[T] | None = None
        self._fetch_in_progress: _FetchInProgress[T] | None = None
        self._invalid: MetadataError | None = None
        """The error of a document that replaced a valid one at the provider."""
        self._cooldown_until = float("-inf")
        self._refetch_limits: Mapping[TokenSource, _RefetchLimit] = {
            "provider": _RefetchLimit(first_cooldown_seconds=FIRST_PROVIDER_COOLDOWN_SECONDS),
            "anyone": _RefetchLimit(first_cooldown_seconds=REFETCH_COOLDOWN_SECONDS),
        }
        self._slow_until = float("-inf")

    def get(self, *, timeout_seconds: float) -> T:
        """Return the document: fresh, or stale but usable while the provider is unreachable or its
        answer invalid.

        timeout_seconds: for the fetch, or for the wait for another thread's fetch. When that thread
        had a shorter timeout and failed with it, this one tries again with its remaining time.
        Only one thread waits for a slow fetch, and none for one that hangs.
        Raises: TransportError, and the errors of the fetch.
        """
        now = self._monotonic()
        ends_at = now + timeout_seconds
        with self._lock:
            cached = self._copy
            pending = self._fetch_in_progress
            usable = cached is not None and cached.is_usable(now, self._invalid)
            is_cooling_down = now < self._cooldown_until
            if cached is not None and (
                now < cached.fresh_until or (usable and (pending or is_cooling_down))
            ):
                return cached.value
            if pending is None and is_cooling_down and self._invalid is not None:
                raise copy.copy(self._invalid)
            if pending is None:
                own = self._fetch_in_progress = _FetchInProgress(started_at=now, ends_at=ends_at)
        if pending is not None:
            try:
                return self._wait_for_fetch(pending, timeout_seconds)
            except TransportError as error:
                remaining = ends_at - self._monotonic()
                if (
                    error.code is not Code.TRANSPORT_TIMEOUT
                    or remaining <= 0
                    or ends_at <= pending.ends_at
                ):
                    raise
            return self.get(timeout_seconds=remaining)
        try:
            return self._run_fetch(own, timeout_seconds)
        except (TransportError, MetadataError) as error:
            if cached is None:
                raise
            with self._lock:
                if isinstance(error, MetadataError):
                    self._invalid = error
                else:
                    self._invalid = None
                self._cooldown_until = self._monotonic() + REFETCH_COOLDOWN_SECONDS
            if not cached.is_usable(now, error):
                raise
            return cached.value

    def refetch(self, *, outdated: T, source: TokenSource, timeout_seconds: float) -> T:
        """Return a newer document than outdated, or outdated itself when the last refetch was a
        moment ago.

        source: refetches for tokens from the provider and from anyone are limited separately, so
        that a token of a stranger does not delay sign-ins: the former wait for 1 s at first, the
        latter for 30 s. Failed refetches count too. One thread fetches, and others wait for it.
        Raises: TransportError, and the errors of the fetch.
        """
        now = self._monotonic()
        with self._lock:
            if self._copy is not None and self._copy.value is not outdated:
                return self._copy.value
            pending = self._fetch_in_progress
            if pending is None:
                limit = self._refetch_limits[source]
                if not limit.allows_refetch(now):
                    return outdated
                limit.record_refetch(now)
                own = self._fetch_in_progress = _FetchInProgress(
                    started_at=now, ends_at=now + timeout_seconds
                )

        if pending:
            return self._wait_for_fetch(pending, timeout_seconds)
        return self._run_fetch(own, timeout_seconds)

    def _run_fetch(self, fetch_in_progress: _FetchInProgress[T], timeout_seconds: float) -> T:
        try:
            value, fresh_seconds = self._fetch(timeout_seconds)
        except SignInRefused as error:
            fetch_in_progress.error = error
            raise
        else:
            fetch_in_progress.fetched_copy = self._create_copy(value, fresh_seconds)
            return value
        finally:
            with self._lock:
                self._copy = fetch_in_progress.fetched_copy or self._copy
                self._fetch_in_progress = None
                now = self._monotonic()
                if now - fetch_in_progress.started_at >= QUICK_SECONDS:
                    self._slow_until = now + SLOW_SECONDS
            fetch_in_progress.finished.set()

    def _create_copy(self, value: T, fresh_seconds: float) -> _CachedCopy[T]:
        now = self._monotonic()
        validity_seconds = self._find_validity_seconds(value)
        fresh_until = now + fresh_seconds
        if validity_seconds is None:
            return _CachedCopy(
                value=value,
                fresh_until=fresh_until,
                valid_until=fresh_until + STALE_IF_ERROR_SECONDS,
            )
        valid_until = now + validity_seconds
        return _CachedCopy(
            value=value, fresh_until=min(fresh_until, valid_until), valid_until=valid_until
        )

    def _wait_for_fetch(self, fetch_in_progress: _FetchInProgress[T], timeout_seconds: float) -> T:
        with self._lock:
            is_only_waiter = not fetch_in_progress.has_waiter
            fetch_in_progress.has_waiter = True
        now = self._monotonic()
        if is_only_waiter:
            refused_at = fetch_in_progress.started_at + STALLED_SECONDS
        elif now < self._slow_until:
            refused_at = now
        else:
            refused_at = fetch_in_progress.started_at + QUICK_SECONDS
        seconds_to_refusal = refused_at - now
        try:
            is_finished = fetch_in_progress.finished.wait(min(timeout_seconds, seconds_to_refusal))
        finally:
            if is_only_waiter:
                fetch_in_progress.has_waiter = False
        if not is_finished:
            if seconds_to_refusal < timeout_seconds:
                raise create_suspension_error()
            message = "The fetch of another thread took longer than this one could wait."
            raise TransportError(Code.TRANSPORT_TIMEOUT, message)
        if (error := fetch_in_progress.error) is not None:
            raise copy.copy(error)  # a copy, because each thread adds its traceback
        if fetch_in_progress.fetched_copy is None:
            raise TransportError(
                Code.TRANSPORT_UNREACHABLE, "The fetch of another thread was interrupted."
            )
        return fetch_in_progress.fetched_copy.value


class RemoteKeySet(Generic[T]):
    """The provider's current keys. A token that matches none of them triggers a refetch."""

    def __init__(
        self,
        cached: CachedDocument[T],
        *,
        read_keys: Callable[[T], JSONWebKeySet],
        source: TokenSource,
        timeout_seconds: float,
    ) -> None:
        """read_keys: from the document. source: of the tokens. timeout_seconds: for each fetch."""
        self._cached = cached
        self._read_keys = read_keys
        self._source = source
        self._timeout_seconds = timeout_seconds

    def get_key(self, *, kid: str | None, alg: str) -> VerificationKey:
        """Return the one matching key, after one refetch when no known key matches.

        Raises: KeyNotFound; TransportError or MetadataInvalid, when there is not even an old copy
        of the keys.
        Spec: OIDC Core 10.1.1.
        """
        document = self._cached.get(timeout_seconds=self._timeout_seconds)
        with suppress(KeyNotFound):
            return self._read_keys(document).get_key(kid=kid, alg=alg)
        try:
            fetched = self._cached.refetch(
                outdated=document, source=self._source, timeout_seconds=self._timeout_seconds
            )
        except SignInRefused as error:
            message = f"No published key matches, and the refetch failed: {error.code}."
            raise KeyNotFound(message, is_certain=False) from error
        if fetched is document:
            raise KeyNotFound(
                "No key matches, and it is too early to fetch the keys again.", is_certain=False
            )
        return self._read_keys(fetched).get_key(kid=kid, alg=alg)
