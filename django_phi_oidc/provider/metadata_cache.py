"""R2: for how long a document of the OP is good, and who fetches it anew.

The cache is the memory of the process and never a shared one: a poisoned cache would be a forged key.
"""

import copy
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import (
    KeyNotFound,
    MetadataInvalid,
    SignInRefused,
    TransportError,
    TransportTimeout,
    TransportUnreachable,
)
from ..oidc.jwks import JSONWebKeySet, VerificationKey

MIN_FRESH_SECONDS = 5 * 60
MAX_FRESH_SECONDS = 24 * 60 * 60
STALE_IF_ERROR_SECONDS = 60 * 60
"""For how long after its freshness a copy is still good when the OP can't be reached."""
REFETCH_COOLDOWN_SECONDS = 30
"""Between two refetches for an unknown kid, and after a refetch that failed while the old copy is still good."""

_MAX_AGE = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?([0-9]+)', re.IGNORECASE)
_UNSTORABLE = re.compile(r"(?:^|[\s,])no-(?:store|cache)\b", re.IGNORECASE)

T = TypeVar("T")
Fetch = Callable[[float], tuple[T, float]]
"""Takes a deadline in seconds, returns what was judged good and for how many seconds it is fresh."""


def parse_freshness_seconds(headers: Mapping[str, str]) -> float:
    """Return for how many seconds an answer with these headers is fresh: between 5 minutes and 24 hours.

    What may not be stored is kept for the least time: a fetch for each sign-in would hang every one on the OP.

    Spec: RFC 9111 5.2.2.1. Age and Expires are not read.
    """
    cache_control = headers.get("cache-control", "")
    max_age = _MAX_AGE.search(cache_control)
    if max_age is None or _UNSTORABLE.search(cache_control):
        return MIN_FRESH_SECONDS
    # No more digits than count: Python refuses to read thousands.
    digits = max_age[1].lstrip("0")
    seconds = int(digits or 0) if len(digits) < 9 else MAX_FRESH_SECONDS
    return max(MIN_FRESH_SECONDS, min(seconds, MAX_FRESH_SECONDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class _CachedCopy(Generic[T]):
    value: T
    fresh_until: float


class _FetchInProgress(Generic[T]):
    """One fetch under way, for which other threads may wait."""

    def __init__(self, *, ends_at: float) -> None:
        self.ends_at = ends_at
        self.finished = threading.Event()
        self.fetched_copy: _CachedCopy[T] | None = None
        self.error: SignInRefused | None = None


class CachedDocument(Generic[T]):
    """One document of the OP. A good copy is replaced by a good one only, and one thread at a time fetches."""

    def __init__(self, fetch: Fetch[T], *, monotonic: Callable[[], float]) -> None:
        """monotonic: seconds of a clock that never goes back."""
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._copy: _CachedCopy[T] | None = None
        self._fetch_in_progress: _FetchInProgress[T] | None = None
        self._cooldown_until = float("-inf")
        self._last_refetch_at = float("-inf")

    def get(self, *, deadline: float) -> T:
        """Return the document: fresh, or at most an hour over while the OP can't be reached or answers nonsense.

        deadline: seconds, for the fetch or for the wait for another thread's. When that one had less time than this
        one, and it was too short, this one tries again with what is left.

        Raises: TransportError; whatever the fetch refuses.
        """
        now = self._monotonic()
        ends_at = now + deadline
        with self._lock:
            held, flight = self._copy, self._fetch_in_progress
            usable = held is not None and now < held.fresh_until + STALE_IF_ERROR_SECONDS
            if held is not None and (
                now < held.fresh_until or (usable and (flight is not None or now < self._cooldown_until))
            ):
                return held.value
            own = flight is None
            if flight is None:
                flight = self._fetch_in_progress = _FetchInProgress(ends_at=ends_at)
        if not own:
            try:
                return self._wait_for_fetch(flight, deadline=deadline)
            except TransportTimeout:
                left = ends_at - self._monotonic()
                if left <= 0 or ends_at <= flight.ends_at:
                    raise
            return self.get(deadline=left)
        try:
            return self._run_fetch(flight, deadline=deadline)
        except (TransportError, MetadataInvalid):
            if held is None or not usable:
                raise
            with self._lock:
                self._cooldown_until = self._monotonic() + REFETCH_COOLDOWN_SECONDS
            return held.value

    def refetch(self, *, outdated: T, deadline: float) -> T:
        """Return a newer document than instead_of, or instead_of itself when the last renewal is under 30 s ago.

        A renewal that failed counts too. Of several threads one fetches, and the others wait for what it brings.

        Raises: TransportError; whatever the fetch refuses.
        """
        now = self._monotonic()
        with self._lock:
            if self._copy is not None and self._copy.value is not outdated:
                return self._copy.value
            flight = self._fetch_in_progress
            own = flight is None
            if flight is None:
                if now < self._last_refetch_at + REFETCH_COOLDOWN_SECONDS:
                    return outdated
                self._last_refetch_at = now
                flight = self._fetch_in_progress = _FetchInProgress(ends_at=now + deadline)
        return self._run_fetch(flight, deadline=deadline) if own else self._wait_for_fetch(flight, deadline=deadline)

    def _run_fetch(self, fetch_in_progress: _FetchInProgress[T], *, deadline: float) -> T:
        try:
            value, seconds = self._fetch(deadline)
        except SignInRefused as error:
            fetch_in_progress.error = error
            raise
        else:
            fetch_in_progress.fetched_copy = _CachedCopy(value=value, fresh_until=self._monotonic() + seconds)
            return value
        finally:
            with self._lock:
                self._copy = fetch_in_progress.fetched_copy or self._copy
                self._fetch_in_progress = None
            fetch_in_progress.finished.set()

    def _wait_for_fetch(self, fetch_in_progress: _FetchInProgress[T], *, deadline: float) -> T:
        if not fetch_in_progress.finished.wait(deadline):
            raise TransportTimeout("Another thread's fetch took longer than this one could wait.")
        if fetch_in_progress.error is not None:
            # A copy: an exception that several threads raise gathers the tracebacks of all.
            raise copy.copy(fetch_in_progress.error)
        if fetch_in_progress.fetched_copy is None:
            raise TransportUnreachable("Another thread's fetch broke off.")
        return fetch_in_progress.fetched_copy.value


class RemoteKeySet:
    """The OP's keys as they are now: a token that none of the known ones fits makes us look again."""

    def __init__(self, cached: CachedDocument[JSONWebKeySet], *, deadline: float) -> None:
        """deadline: seconds, for each fetch."""
        self._cached = cached
        self._deadline = deadline

    def get_key(self, *, kid: str | None, alg: str) -> VerificationKey:
        """Return the one key that fits, after one refetch when none of the known ones does.

        Raises: KeyNotFound; TransportError or MetadataInvalid, when not even an old copy of the keys is at hand.
        Spec: OIDC Core 10.1.1.
        """
        keys = self._cached.get(deadline=self._deadline)
        try:
            return keys.get_key(kid=kid, alg=alg)
        except KeyNotFound:
            return self._refetch_keys(keys).get_key(kid=kid, alg=alg)

    def _refetch_keys(self, keys: JSONWebKeySet) -> JSONWebKeySet:
        try:
            renewed = self._cached.refetch(outdated=keys, deadline=self._deadline)
        except SignInRefused as error:
            message = f"No published key fits, and the refetch failed: {error.code}."
            raise KeyNotFound(message, is_certain=False) from error
        if renewed is keys:
            raise KeyNotFound("No key fits, and it is too early to fetch the keys again.", is_certain=False)
        return renewed
