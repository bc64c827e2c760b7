"""Pushed authorization requests, whose parameters the browser does not see (R3). Spec: RFC 9126."""

import re
from collections.abc import Mapping
from typing import Unpack

from ..config.providers import ProviderDeclaration
from ..errors import Code, PARError, PushedRequestError
from ..http.transport import (
    TransportRequest,
    TransportResponse,
    get_media_type,
    parse_json_body,
    parse_retry_after,
)
from .client_auth import ClientContext, build_client_request
from .error_codes import get_error_code
from .metadata import ProviderMetadata

_REQUEST_URI_PATTERN = re.compile(r"[!-~]{1,512}")
"""Visible ASCII, short enough for a URL that all browsers and proxies accept."""


def is_par_enabled(*, metadata: ProviderMetadata, declaration: ProviderDeclaration) -> bool:
    """Return whether requests are pushed: if the provider supports it, unless the declaration is
    `never`.

    `require` without an endpoint is refused when the metadata is processed.
    """
    return declaration.par != "never" and bool(metadata.pushed_authorization_request_endpoint)


def build_par_request(
    *, parameters: Mapping[str, str], **client: Unpack[ClientContext]
) -> TransportRequest:
    """Return the request that pushes the parameters of an authorization request. Spec: RFC 9126
    2.1.
    """
    endpoint = client["metadata"].pushed_authorization_request_endpoint
    return build_client_request(operation="par", url=endpoint, parameters=parameters, **client)


def process_par_response(
    response: TransportResponse, *, declaration: ProviderDeclaration
) -> dict[str, str]:
    """Return the parameters for the browser: client_id and request_uri.

    Only status 201 is success, since the specification defines no other. NOT checked: that
    expires_in is long enough for the browser; the provider reports an expired request_uri.
    Raises: PushedRequestError. Spec: RFC 9126 2.2, 2.3, 4.
    """
    members = parse_json_body(response) or {}
    raise_for_par_error(members, response=response)
    if response.status != 201 or get_media_type(response) != "application/json":
        raise PushedRequestError(Code.PAR_RESPONSE_INVALID)
    request_uri = members.get("request_uri")
    expires_in = members.get("expires_in")
    if not isinstance(request_uri, str) or not _REQUEST_URI_PATTERN.fullmatch(request_uri):
        raise PushedRequestError(Code.PAR_RESPONSE_INVALID)
    if not isinstance(expires_in, int) or isinstance(expires_in, bool) or expires_in <= 0:
        raise PushedRequestError(Code.PAR_RESPONSE_INVALID)
    return {"client_id": declaration.client_id, "request_uri": request_uri}


def raise_for_par_error(members: Mapping[str, object], *, response: TransportResponse) -> None:
    """`par_error`: the status is 2xx and the body has no `error`. error_description is not read.
    Spec: RFC 9126 2.3.
    """
    if not 200 <= response.status < 300 or "error" in members:
        error = get_error_code(members.get("error"))
        raise PARError(status=response.status, error=error, retry_after=parse_retry_after(response))
