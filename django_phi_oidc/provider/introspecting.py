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

from .. import entropy
from ..oidc.access_token import AccessToken, Addressee
from ..oidc.client_auth import Freshness
from ..oidc.introspection import build_introspection_request, judge_introspection_response
from .registry import Provider

MOST = 4096
"""Tokens; the one that was not used for longest goes first."""

Key = tuple[Addressee, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    token: AccessToken
    until: float


class Memory:
    """What was told, for as long as it counts. Threads may share it."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        """monotonic: seconds of a clock that never goes back."""
        self._monotonic = monotonic
        self._most = most
        self._lock = threading.Lock()
        self._secret = entropy.token_bytes(32)
        self._told: OrderedDict[Key, _Told] = OrderedDict()

    def key_of(self, token: str, meant: Addressee) -> Key:
        """Return what the OP's word of a token at that API is found by; in no other memory is it the same."""
        return meant, hashlib.blake2b(token.encode(), key=self._secret, digest_size=32).digest()

    def recall(self, key: Key, *, now: datetime) -> AccessToken | None:
        """Return what was told, if it still counts."""
        with self._lock:
            told = self._told.get(key)
            if told is None:
                return None
            if self._monotonic() >= told.until or now >= told.token.expires_at:
                del self._told[key]
                return None
            self._told.move_to_end(key)
            return told.token

    def keep(self, key: Key, token: AccessToken, *, until: float) -> None:
        """Let it count until that moment of the clock."""
        with self._lock:
            self._told[key] = _Told(token=token, until=until)
            self._told.move_to_end(key)
            if len(self._told) > self._most:
                self._told.popitem(last=False)

    def moment(self) -> float:
        """Return the clock's seconds now."""
        return self._monotonic()


# By process: the lock of one that was forked may be held by a thread that the child does not have.
_memories: dict[int, Memory] = {}


@sensitive_variables("token")
def introspect(
    token: str,
    *,
    meant: Addressee,
    provider: Provider,
    now: datetime,
    deadline: float,
    memory: Memory | None = None,
) -> AccessToken:
    """Return what the OP says of a token for that API, now or at most the API's introspection_cache ago.

    provider: the addressee's. deadline: seconds, for the metadata, and again for the question.
    memory: that of the process when it is None.
    Raises: AccessTokenInvalid; IntrospectionFailed, TransportError, MetadataError.
    """
    memory = memory or _memories.get(os.getpid()) or _memories.setdefault(os.getpid(), Memory())
    key = memory.key_of(token, meant)
    if told := memory.recall(key, now=now):
        return told
    request = build_introspection_request(
        metadata=provider.metadata(deadline=deadline),
        declaration=meant.provider,
        token=token,
        freshness=Freshness(now=now, jti=entropy.token_b64url(32)),
    )
    # From before the question: what was revoked while the answer was on its way lives no longer than it may.
    asked_at = memory.moment()
    fresh = judge_introspection_response(provider.transport.send(request, deadline=deadline), meant=meant, now=now)
    if meant.api.introspection_cache > timedelta(0):
        memory.keep(key, fresh, until=asked_at + meant.api.introspection_cache.total_seconds())
    return fresh
