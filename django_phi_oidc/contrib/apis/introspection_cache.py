"""Token introspection with a cache in the memory of the process. Spec: RFC 7662 4.

A shared cache would let everyone with write access to it grant access. The cache stores keyed
digests of tokens, and only positive results: a refused token is introspected again, so invalid
tokens cannot evict those of users. An entry is valid for some seconds, and never beyond the token's
`exp`.
"""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from django.views.decorators.debug import sensitive_variables

from ..._internal import randomness
from ...oidc.client_auth import AssertionFreshness
from ...provider.registry import Provider
from .access_token import AccessToken, ResourceServer
from .confirmation import validate_confirmation
from .introspection import build_introspection_request, process_introspection_response

MAX_CACHED_TOKENS = 4096
"""Tokens. The least recently used one is evicted first."""

CacheKey = tuple[ResourceServer, bytes]


class IntrospectionCache:
    """Introspected tokens, for as long as they are valid here. Threads may share it."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        max_tokens: int = MAX_CACHED_TOKENS,
    ) -> None:
        """monotonic: a clock in seconds that never goes back."""
        self.monotonic = monotonic
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._digest_key = randomness.token_bytes(32)
        self._cached_tokens: OrderedDict[CacheKey, tuple[AccessToken, float]] = OrderedDict()

    def compute_key(self, token: str, audience: ResourceServer) -> CacheKey:
        """Return the cache key of a token at that API. It differs between caches."""
        return audience, hashlib.blake2b(
            token.encode(), key=self._digest_key, digest_size=32
        ).digest()

    def find_token(self, key: CacheKey, *, now: datetime) -> AccessToken | None:
        """Return the cached token, if it is still valid."""
        with self._lock:
            if key not in self._cached_tokens:
                return None
            token, valid_until = self._cached_tokens[key]
            if self.monotonic() >= valid_until or now >= token.expires_at:
                del self._cached_tokens[key]
                return None
            self._cached_tokens.move_to_end(key)
            return token

    def store_token(self, key: CacheKey, token: AccessToken, *, valid_until: float) -> None:
        """Cache the token until that time of the monotonic clock."""
        with self._lock:
            self._cached_tokens[key] = token, valid_until
            self._cached_tokens.move_to_end(key)
            if len(self._cached_tokens) > self._max_tokens:
                self._cached_tokens.popitem(last=False)


# Keyed by process id: a thread that a forked child lacks may hold the inherited lock.
_caches_by_pid: dict[int, IntrospectionCache] = {}


@sensitive_variables("token")
def introspect_token(
    token: str,
    *,
    audience: ResourceServer,
    provider: Provider,
    proofs: Mapping[str, str],
    now: datetime,
    timeout_seconds: float,
    cache: IntrospectionCache | None = None,
) -> AccessToken:
    """Return what the provider says of a token for that API, from the cache or by introspection.

    provider: that of the audience. proofs: of this request, as of validate_confirmation.
    timeout_seconds: for the metadata, and again for the introspection request. cache: that of the
    process if None.
    Raises: AccessTokenInvalid; IntrospectionFailed, TransportError, MetadataError.
    """
    cache = (
        cache
        or _caches_by_pid.get(os.getpid())
        or _caches_by_pid.setdefault(os.getpid(), IntrospectionCache())
    )
    key = cache.compute_key(token, audience)
    access_token = cache.find_token(key, now=now)
    if access_token is None:
        request = build_introspection_request(
            metadata=provider.get_metadata(timeout_seconds=timeout_seconds),
            declaration=audience.provider,
            token=token,
            freshness=AssertionFreshness(now=now, jti=randomness.token_b64url(32)),
        )
        # Read the clock before the request: a token revoked while the response is in transit must
        # not be cached longer.
        valid_until = cache.monotonic() + audience.api.introspection_cache.total_seconds()
        response = provider.transport.send(request, timeout_seconds=timeout_seconds)
        access_token = process_introspection_response(response, resource_server=audience, now=now)
        if audience.api.introspection_cache > timedelta(0):
            cache.store_token(key, access_token, valid_until=valid_until)
    # For each request: another sender may have stolen a token that is cached.
    validate_confirmation(access_token.confirmation, proofs=proofs)
    return access_token
