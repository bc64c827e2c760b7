"""Fetch the metadata of a provider: the document of OIDC Discovery, and that of RFC 8414 for what it lacks."""

import time
from collections.abc import Mapping
from typing import Any

from .. import conf
from ..config.providers import ProviderDeclaration
from ..errors import Code, MetadataError, TransportError
from ..oidc.metadata import (
    ProviderMetadata,
    build_metadata_request,
    build_oauth_metadata_requests,
    process_metadata_response,
    process_oauth_metadata_response,
)
from ..oidc.transport import Transport, TransportResponse, parse_json_body

OAUTH_METADATA_SECONDS = 3.0
"""For the document of RFC 8414 at all its places: a sign-in may wait for it."""
_TEMPORARY_FAULTS = (
    *(Code.TRANSPORT_TIMEOUT, Code.TRANSPORT_UNREACHABLE, Code.TRANSPORT_TLS),
    Code.PROVIDER_SUSPENDED,
)


def fetch_metadata(
    declaration: ProviderDeclaration, *, transport: Transport, timeout_seconds: float
) -> tuple[ProviderMetadata, TransportResponse, Mapping[str, Any] | None]:
    """Return the validated metadata, the response of OIDC Discovery, and the result of `fetch_oauth_members`.

    Raises: TransportError, MetadataError. Spec: OIDC Discovery 4, RFC 8414 3.
    """
    ends_at = time.monotonic() + timeout_seconds
    response = transport.send(build_metadata_request(issuer=declaration.issuer), timeout_seconds=timeout_seconds)
    members = fetch_oauth_members(
        response, declaration=declaration, transport=transport, timeout_seconds=ends_at - time.monotonic()
    )
    try:
        metadata = process_metadata_response(response, declaration=declaration, oauth_members=members)
    except MetadataError as error:
        if members is None and error.code in (Code.REVOCATION_UNSUPPORTED, Code.PAR_UNSUPPORTED):
            # The missing document may have the endpoint: this is an outage, and no property of the provider.
            raise MetadataError(Code.METADATA_INVALID) from None
        raise
    return metadata, response, members


def fetch_oauth_members(
    response: TransportResponse, *, declaration: ProviderDeclaration, transport: Transport, timeout_seconds: float
) -> Mapping[str, Any] | None:
    """Return the members of RFC 8414 if the response of OIDC Discovery lacks a needed endpoint, or else none.

    None: the document could not be fetched for now.
    """
    members = parse_json_body(response) if response.status == 200 else None
    known = {*(members or {}), *(name for name, _ in declaration.metadata_overrides)}
    if members is None or members.get("issuer") != declaration.issuer or known >= _list_needed_endpoints(declaration):
        return {}
    ends_at = time.monotonic() + min(timeout_seconds, OAUTH_METADATA_SECONDS)
    is_complete = True
    for request in build_oauth_metadata_requests(issuer=declaration.issuer):
        try:
            oauth_response = transport.send(request, timeout_seconds=ends_at - time.monotonic())
        except TransportError as error:
            is_complete = is_complete and error.code not in _TEMPORARY_FAULTS
            continue
        found = process_oauth_metadata_response(oauth_response, issuer=declaration.issuer)
        if found is not None:
            return found
        is_complete = is_complete and oauth_response.status < 500 and oauth_response.status != 429
    return {} if is_complete else None


def _list_needed_endpoints(declaration: ProviderDeclaration) -> set[str]:
    needed = {"revocation_endpoint"}
    if declaration.par == "require":
        needed.add("pushed_authorization_request_endpoint")
    api = conf.apis().get(declaration.name)
    if api is not None and api.method == "introspection":
        needed.add("introspection_endpoint")
    return needed
