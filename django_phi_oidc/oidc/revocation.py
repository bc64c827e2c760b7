"""Revocation of a token at the provider. Spec: RFC 7009."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Unpack

from ..errors import Code, MetadataError
from ..http.transport import (
    TransportRequest,
    TransportResponse,
    parse_json_body,
    parse_retry_after,
)
from .client_auth import ClientContext, build_client_request
from .error_codes import get_error_code
from .token import TokenTypeHint

RevocationResult = Literal["done", "unsupported", "retry", "unexpected", "retry_slowly", "refused"]

_TEMPORARY_STATUSES = (408, 421, 425, 429)
"""Of a proxy or an overloaded server. Spec: RFC 9110 15.5.9, 15.5.20; RFC 8470 5.2; RFC 6585 4."""
_RESULTS: dict[tuple[int, str], RevocationResult] = {
    (400, "unsupported_token_type"): "unsupported",
    (401, "unsupported_token_type"): "unsupported",
    (400, "invalid_token"): "done",
    (400, "invalid_request"): "refused",
    (400, "invalid_grant"): "refused",
    (400, "invalid_scope"): "refused",
    (400, "unauthorized_client"): "refused",
    (400, "unsupported_grant_type"): "refused",
}
"""The final results by status and error: a repetition gets the same answer. Spec: RFC 7009 2.2.1;
RFC 6749 5.2.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationOutcome:
    """The result of a revocation request.

    done: the token is revoked. unsupported: the provider cannot revoke this type of token. retry:
    retry with the usual back-off, not before retry_after. unexpected: as retry, but the response is
    not one of a revocation endpoint, so an operator may have to fix its URL or a proxy.
    retry_slowly: client authentication failed, which an operator must fix.
    refused: do not retry.
    """

    result: RevocationResult
    error: str = ""
    """The registered code of the provider's error, or `other`; empty if the response has none."""
    retry_after: timedelta | None = None
    """From Retry-After, at most a day."""


def build_revocation_request(
    *, token: str, token_type_hint: TokenTypeHint, **client: Unpack[ClientContext]
) -> TransportRequest:
    """Return the request that revokes token, with the token only in the body. A retry needs a new
    request.

    Raises: MetadataError if the provider has no revocation endpoint. Spec: RFC 7009 2.1.
    """
    endpoint = client["metadata"].revocation_endpoint
    if not endpoint:
        raise MetadataError(Code.REVOCATION_UNSUPPORTED)
    parameters = {"token": token, "token_type_hint": token_type_hint}
    return build_client_request(
        operation="revocation", url=endpoint, parameters=parameters, **client
    )


def process_revocation_response(response: TransportResponse) -> RevocationOutcome:
    """Return the outcome. Status 200 is success, regardless of the body. Never raises.

    Only a 400 or 401 with a registered error is final. Any other response may come from a proxy, or
    from a provider that is being restarted: a retry does no harm, and a token whose revocation is
    given up stays valid.

    A 400 with `invalid_token`, which Google sends, is success: the token is no longer valid.
    Spec: RFC 7009 2.2, 2.2.1; RFC 6749 5.2; RFC 9110 10.2.3.
    """
    status = response.status
    if status == 200:
        return RevocationOutcome(result="done")
    members = parse_json_body(response) or {}
    if "error" in members:
        error = get_error_code(members["error"])
    else:
        error = ""

    if not 400 <= status < 500 or status in _TEMPORARY_STATUSES:
        return RevocationOutcome(
            result="retry", error=error, retry_after=parse_retry_after(response)
        )
    if result := _RESULTS.get((status, error)):
        return RevocationOutcome(result=result, error="" if result == "done" else error)
    is_rejected_client = status == 401 or (status, error) == (400, "invalid_client")
    if is_rejected_client:
        result = "retry_slowly"
    else:
        result = "unexpected"

    return RevocationOutcome(result=result, error=error, retry_after=parse_retry_after(response))
