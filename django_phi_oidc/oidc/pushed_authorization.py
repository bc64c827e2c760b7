"""R3: the authorization request goes to the OP before the browser does, which sees nothing of it. Spec: RFC 9126."""

import re
from collections.abc import Mapping

from ..config.providers import ProviderDeclaration
from ..errors import PARError, PARResponseInvalid
from .authorization import AUTHORIZATION_ERROR_CODES
from .client_auth import AssertionFreshness, build_client_request
from .metadata import ProviderMetadata
from .transport import TransportRequest, TransportResponse, get_media_type, parse_json_body

_REQUEST_URI_PATTERN = re.compile(r"[!-~]{1,512}")
"""Visible ASCII, and no longer than what goes through every browser and proxy beside a client_id."""


def is_par_enabled(*, metadata: ProviderMetadata, declaration: ProviderDeclaration) -> bool:
    """Say whether requests to this OP are pushed: wherever it takes them, unless the declaration says never.

    `require` without an endpoint is refused with the metadata.
    """
    return declaration.par != "never" and bool(metadata.pushed_authorization_request_endpoint)


def build_par_request(
    *,
    metadata: ProviderMetadata,
    declaration: ProviderDeclaration,
    parameters: Mapping[str, str],
    freshness: AssertionFreshness,
) -> TransportRequest:
    """Return the request that pushes parameters, those of an authorization request, by the authenticated client.

    Spec: RFC 9126 2.1.
    """
    return build_client_request(
        operation="par",
        url=metadata.pushed_authorization_request_endpoint,
        metadata=metadata,
        declaration=declaration,
        parameters=parameters,
        freshness=freshness,
    )


def process_par_response(response: TransportResponse, *, declaration: ProviderDeclaration) -> dict[str, str]:
    """Return the parameters that are left for the browser to carry: client_id and request_uri.

    201 alone is success: of another 2xx nobody can say what it means. NOT checked: that expires_in suffices for a
    person to get there; the OP says so to whoever comes late.

    Raises: PARError, PARResponseInvalid.
    Spec: RFC 9126 2.2, 2.3, 4.
    """
    members = parse_json_body(response) or {}
    raise_for_par_error(members, status=response.status)
    if response.status != 201 or get_media_type(response) != "application/json":
        raise PARResponseInvalid
    request_uri, expires_in = members.get("request_uri"), members.get("expires_in")
    if not isinstance(request_uri, str) or not _REQUEST_URI_PATTERN.fullmatch(request_uri):
        raise PARResponseInvalid
    if not isinstance(expires_in, int) or isinstance(expires_in, bool) or expires_in <= 0:
        raise PARResponseInvalid
    return {"client_id": declaration.client_id, "request_uri": request_uri}


def raise_for_par_error(members: Mapping[str, object], *, status: int) -> None:
    """`par_error`: the answer is a success and no OAuth error. error_description is not read. Spec: RFC 9126 2.3."""
    error = members.get("error")
    if not 200 <= status < 300 or "error" in members:
        named = error if isinstance(error, str) and error in {*AUTHORIZATION_ERROR_CODES, "invalid_client"} else "other"
        raise PARError(f"The push was answered with {status}, error {named} (RFC 9126 2.3).", status=status)
