"""R2: for how long a document of the OP is good, and who fetches it anew.

The cache is the memory of the process and never a shared one: a poisoned cache would be a forged key.
"""

import copy
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import KeyNotFound, MetadataInvalid, SignInRefused, TransportError, TransportTimeout, TransportUnreachable
from ..oidc.jwks import JSONWebKeySet, VerificationKey

MIN_FRESH_SECONDS = 5 * 60
MAX_FRESH_SECONDS = 24 * 60 * 60
STALE_SECONDS = 60 * 60
"""For how long after its freshness a copy is still good when the OP can't be reached."""
COOLDOWN_SECONDS = 30
"""Between two refetches for an unknown kid, and after a refetch that failed while the old copy is still good."""

_MAX_AGE = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?([0-9]+)', re.IGNORECASE)
_UNSTORABLE = re.compile(r"(?:^|[\s,])no-(?:store|cache)\b", re.IGNORECASE)

T = TypeVar("T")
Fetch = Callable[[float], tuple[T, float]]
"""Takes a deadline in seconds, returns what was judged good and for how many seconds it is fresh."""


def fresh_seconds(headers: Mapping[str, str]) -> float:
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
class _Copy(Generic[T]):
    value: T
    fresh_until: float


class _Flight(Generic[T]):
    """One fetch under way, for which other threads may wait."""

    def __init__(self, *, ends_at: float) -> None:
        self.ends_at = ends_at
        self.landed = threading.Event()
        self.brought: _Copy[T] | None = None
        self.error: SignInRefused | None = None


class CachedDocument(Generic[T]):
    """One document of the OP. A good copy is replaced by a good one only, and one thread at a time fetches."""

    def __init__(self, fetch: Fetch[T], *, monotonic: Callable[[], float]) -> None:
        """monotonic: seconds of a clock that never goes back."""
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._copy: _Copy[T] | None = None
        self._flight: _Flight[T] | None = None
        self._rest_until = float("-inf")
        self._renewed_at = float("-inf")

    def get(self, *, deadline: float) -> T:
        """Return the document: fresh, or at most an hour over while the OP can't be reached or answers nonsense.

        deadline: seconds, for the fetch or for the wait for another thread's. When that one had less time than this
        one, and it was too short, this one tries again with what is left.

        Raises: TransportError; whatever the fetch refuses.
        """
        now = self._monotonic()
        ends_at = now + deadline
        with self._lock:
            held, flight = self._copy, self._flight
            usable = held is not None and now < held.fresh_until + STALE_SECONDS
            if held is not None and (
                now < held.fresh_until or (usable and (flight is not None or now < self._rest_until))
            ):
                return held.value
            own = flight is None
            if flight is None:
                flight = self._flight = _Flight(ends_at=ends_at)
        if not own:
            try:
                return self._wait(flight, deadline=deadline)
            except TransportTimeout:
                left = ends_at - self._monotonic()
                if left <= 0 or ends_at <= flight.ends_at:
                    raise
            return self.get(deadline=left)
        try:
            return self._fly(flight, deadline=deadline)
        except (TransportError, MetadataInvalid):
            if held is None or not usable:
                raise
            with self._lock:
                self._rest_until = self._monotonic() + COOLDOWN_SECONDS
            return held.value

    def renew(self, *, instead_of: T, deadline: float) -> T:
        """Return a newer document than instead_of, or instead_of itself when the last renewal is under 30 s ago.

        A renewal that failed counts too. Of several threads one fetches, and the others wait for what it brings.

        Raises: TransportError; whatever the fetch refuses.
        """
        now = self._monotonic()
        with self._lock:
            if self._copy is not None and self._copy.value is not instead_of:
                return self._copy.value
            flight = self._flight
            own = flight is None
            if flight is None:
                if now < self._renewed_at + COOLDOWN_SECONDS:
                    return instead_of
                self._renewed_at = now
                flight = self._flight = _Flight(ends_at=now + deadline)
        return self._fly(flight, deadline=deadline) if own else self._wait(flight, deadline=deadline)

    def _fly(self, flight: _Flight[T], *, deadline: float) -> T:
        try:
            value, seconds = self._fetch(deadline)
        except SignInRefused as error:
            flight.error = error
            raise
        else:
            flight.brought = _Copy(value=value, fresh_until=self._monotonic() + seconds)
            return value
        finally:
            with self._lock:
                self._copy = flight.brought or self._copy
                self._flight = None
            flight.landed.set()

    def _wait(self, flight: _Flight[T], *, deadline: float) -> T:
        if not flight.landed.wait(deadline):
            raise TransportTimeout("Another thread's fetch took longer than this one could wait.")
        if flight.error is not None:
            # A copy: an exception that several threads raise gathers the tracebacks of all.
            raise copy.copy(flight.error)
        if flight.brought is None:
            raise TransportUnreachable("Another thread's fetch broke off.")
        return flight.brought.value


class LiveKeySet:
    """The OP's keys as they are now: a token that none of the known ones fits makes us look again."""

    def __init__(self, cached: CachedDocument[JSONWebKeySet], *, deadline: float) -> None:
        """deadline: seconds, for each fetch."""
        self._cached = cached
        self._deadline = deadline

    def key_for(self, *, kid: str | None, alg: str) -> VerificationKey:
        """Return the one key that fits, after one refetch when none of the known ones does.

        Raises: KeyNotFound; TransportError or MetadataInvalid, when not even an old copy of the keys is at hand.
        Spec: OIDC Core 10.1.1.
        """
        keys = self._cached.get(deadline=self._deadline)
        try:
            return keys.select(kid=kid, alg=alg)
        except KeyNotFound:
            return self._renewed(keys).select(kid=kid, alg=alg)

    def _renewed(self, keys: JSONWebKeySet) -> JSONWebKeySet:
        try:
            renewed = self._cached.renew(instead_of=keys, deadline=self._deadline)
        except SignInRefused as error:
            message = f"No published key fits, and the refetch failed: {error.code}."
            raise KeyNotFound(message, is_certain=False) from error
        if renewed is keys:
            raise KeyNotFound("No key fits, and it is too early to fetch the keys again.", is_certain=False)
        return renewed
