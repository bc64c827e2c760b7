"""Requests with DPoP proofs, and the nonces that servers require in them. Spec: RFC 9449 4, 8, 9.

A nonce is no secret and is valid for all sessions, so each process stores the last one of each
server in memory.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from django.views.decorators.debug import sensitive_variables

from .._internal import randomness
from ..http.transport import Transport, TransportRequest, TransportResponse
from ..oidc.dpop import (
    ProofKey,
    create_proof,
    find_nonce,
    get_origin,
    is_nonce_challenge,
    is_nonce_required,
)

MAX_SERVERS = 256
_JTI_BYTES = 16
_MIN_CALL_SECONDS = 0.1

_nonces_by_origin: dict[str, str] = {}


@sensitive_variables()
def send_with_proof(
    build_request: Callable[[], TransportRequest],
    *,
    transport: Transport,
    key: ProofKey | None,
    clock: Callable[[], datetime],
    timeout_seconds: float,
    access_token: str = "",
) -> TransportResponse:
    """Send a request with a proof, and once more if the server refuses it only for its nonce
    (`use_dpop_nonce`).

    build_request: is called for each attempt, because a client assertion must be new too. key: None
    sends one request without a proof. access_token: that of the request, if it has one.
    timeout_seconds: for both attempts together.
    Raises: TransportError. Spec: RFC 9449 8, 8.2, 9.
    """
    if key is None:
        return transport.send(build_request(), timeout_seconds=timeout_seconds)
    ends_at = time.monotonic() + timeout_seconds

    def send_once() -> TransportResponse:
        request = build_request()
        proof = create_request_proof(
            key, method=request.method, url=request.url, access_token=access_token, now=clock()
        )
        response = transport.send(
            replace(request, headers={**request.headers, "DPoP": proof}),
            timeout_seconds=max(ends_at - time.monotonic(), _MIN_CALL_SECONDS),
        )
        _store_nonce(request.url, response.headers)
        return response

    response = send_once()
    if is_nonce_required(response):
        return send_once()
    return response


@sensitive_variables()
def create_request_proof(
    key: ProofKey, *, method: str, url: str, access_token: str, now: datetime
) -> str:
    """Return a proof for a request to url, with the last nonce of its server. Spec: RFC 9449 4.2,
    8.2.
    """
    nonce = _nonces_by_origin.get(get_origin(url), "")
    jti = randomness.token_b64url(_JTI_BYTES)
    return create_proof(
        key, method=method, url=url, jti=jti, now=now, access_token=access_token, nonce=nonce
    )


def remember_dpop_nonce(url: str, *, status: int, headers: Mapping[str, str]) -> bool:
    """Store the nonce in an API's response to a request for url; return whether to send that
    request once more.

    headers: of the response, with names in any case. True: the API refused the proof only for its
    nonce. Do not repeat the request a second time. Spec: RFC 9449 8.2, 9.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    _store_nonce(url, lowered)
    is_challenge = status == 401 and is_nonce_challenge(lowered.get("www-authenticate", ""))
    return is_challenge and bool(find_nonce(lowered))


def _store_nonce(url: str, headers: Mapping[str, str]) -> None:
    """The server sends its next nonce in any response. Spec: RFC 9449 8.2."""
    if nonce := find_nonce(headers):
        if len(_nonces_by_origin) >= MAX_SERVERS:
            # Without its nonce, a server refuses the next proof once.
            _nonces_by_origin.clear()
        _nonces_by_origin[get_origin(url)] = nonce
