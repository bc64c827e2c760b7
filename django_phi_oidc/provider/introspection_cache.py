"""What this process was told of access tokens a moment ago, and the question when it was not. Spec: RFC 7662 4.

The memory is the process's, and never a shared cache: who could write there would let in whom they like. It keeps
keyed digests of tokens, and the OP's yes alone: a token that is refused is asked about again, and so no stranger's
tokens drive out those of people. A yes counts for some seconds, and never beyond the token's `exp`.
"""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.views.decorators.debug import sensitive_variables

from .._internal import randomness
from ..oidc.access_token import AccessToken, ResourceServer
from ..oidc.client_auth import AssertionFreshness
from ..oidc.introspection import build_introspection_request, process_introspection_response
from .registry import Provider

MAX_CACHED_TOKENS = 4096
"""Tokens; the one that was not used for longest goes first."""

CacheKey = tuple[ResourceServer, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _CachedToken:
    token: AccessToken
    valid_until: float


class IntrospectionCache:
    """What was told, for as long as it counts. Threads may share it."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic, max_tokens: int = MAX_CACHED_TOKENS) -> None:
        """monotonic: seconds of a clock that never goes back."""
        self._monotonic = monotonic
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._digest_key = randomness.token_bytes(32)
        self._cached_tokens: OrderedDict[CacheKey, _CachedToken] = OrderedDict()

    def compute_key(self, token: str, audience: ResourceServer) -> CacheKey:
        """Return what the OP's word of a token at that API is found by; in no other memory is it the same."""
        return audience, hashlib.blake2b(token.encode(), key=self._digest_key, digest_size=32).digest()

    def find_token(self, key: CacheKey, *, now: datetime) -> AccessToken | None:
        """Return what was told, if it still counts."""
        with self._lock:
            told = self._cached_tokens.get(key)
            if told is None:
                return None
            if self._monotonic() >= told.valid_until or now >= told.token.expires_at:
                del self._cached_tokens[key]
                return None
            self._cached_tokens.move_to_end(key)
            return told.token

    def store_token(self, key: CacheKey, token: AccessToken, *, valid_until: float) -> None:
        """Let it count until that moment of the clock."""
        with self._lock:
            self._cached_tokens[key] = _CachedToken(token=token, valid_until=valid_until)
            self._cached_tokens.move_to_end(key)
            if len(self._cached_tokens) > self._max_tokens:
                self._cached_tokens.popitem(last=False)

    def get_monotonic_time(self) -> float:
        """Return the clock's seconds now."""
        return self._monotonic()


# By process: the lock of one that was forked may be held by a thread that the child does not have.
_caches_by_pid: dict[int, IntrospectionCache] = {}


@sensitive_variables("token")
def introspect_token(
    token: str,
    *,
    audience: ResourceServer,
    provider: Provider,
    now: datetime,
    deadline: float,
    cache: IntrospectionCache | None = None,
) -> AccessToken:
    """Return what the OP says of a token for that API, now or at most the API's introspection_cache ago.

    provider: the addressee's. deadline: seconds, for the metadata, and again for the question.
    memory: that of the process when it is None.
    Raises: AccessTokenInvalid; IntrospectionFailed, TransportError, MetadataError.
    """
    cache = cache or _caches_by_pid.get(os.getpid()) or _caches_by_pid.setdefault(os.getpid(), IntrospectionCache())
    key = cache.compute_key(token, audience)
    if told := cache.find_token(key, now=now):
        return told
    request = build_introspection_request(
        metadata=provider.get_metadata(deadline=deadline),
        declaration=audience.provider,
        token=token,
        freshness=AssertionFreshness(now=now, jti=randomness.token_b64url(32)),
    )
    # From before the question: what was revoked while the answer was on its way lives no longer than it may.
    asked_at = cache.get_monotonic_time()
    fresh = process_introspection_response(
        provider.transport.send(request, deadline=deadline), resource_server=audience, now=now
    )
    if audience.api.introspection_cache > timedelta(0):
        cache.store_token(key, fresh, valid_until=asked_at + audience.api.introspection_cache.total_seconds())
    return fresh
