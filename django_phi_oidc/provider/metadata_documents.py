"""Fetch the metadata and keys of a provider: OIDC Discovery, and RFC 8414 or SMART for what it
lacks.
"""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..config.providers import ProviderDeclaration
from ..errors import Code, MetadataError, TransportError
from ..extensions import MetadataSource, metadata_needs, metadata_sources
from ..http.transport import Transport, TransportResponse, is_outage_status, parse_json_body
from ..oidc.jwks import JSONWebKeySet
from ..oidc.metadata import (
    ProviderMetadata,
    build_jwks_request,
    build_metadata_request,
    build_oauth_metadata_requests,
    get_metadata_issuer,
    process_jwks_response,
    process_metadata_response,
    process_oauth_metadata_response,
)

OAUTH_METADATA_SECONDS = 3.0
"""For the document of RFC 8414 at all its places: a sign-in may wait for it."""
_TEMPORARY_FAULTS = (
    *(Code.TRANSPORT_TIMEOUT, Code.TRANSPORT_UNREACHABLE, Code.TRANSPORT_TLS),
    Code.PROVIDER_SUSPENDED,
)
_ABSENT_MEMBERS = (
    *(Code.REVOCATION_UNSUPPORTED, Code.PAR_UNSUPPORTED),
    *(Code.DPOP_UNSUPPORTED, Code.PROFILE_UNSUPPORTED),
)


def find_metadata_source(declaration: ProviderDeclaration) -> MetadataSource | None:
    """Return the source that replaces OIDC Discovery for the provider; None: there is none."""
    for source in metadata_sources:
        if source.is_declared(declaration):
            return source
    return None


def fetch_metadata(
    declaration: ProviderDeclaration, *, transport: Transport, timeout_seconds: float
) -> tuple[ProviderMetadata, TransportResponse, Mapping[str, Any] | None]:
    """Return the validated metadata, the response of OIDC Discovery, and the result of
    `fetch_oauth_members`.

    Raises: TransportError, MetadataError. Spec: OIDC Discovery 4, RFC 8414 3.
    """
    ends_at = time.monotonic() + timeout_seconds
    response = transport.send(build_metadata_request(declaration), timeout_seconds=timeout_seconds)
    members = fetch_oauth_members(
        response,
        declaration=declaration,
        transport=transport,
        timeout_seconds=ends_at - time.monotonic(),
    )
    try:
        metadata = process_metadata_response(
            response, declaration=declaration, oauth_members=members
        )
    except MetadataError as error:
        if members is None and error.code in _ABSENT_MEMBERS:
            # The missing document may have the member: this is an outage, and no property of the
            # provider.
            raise TransportError(Code.PROVIDER_UNAVAILABLE) from None
        raise
    return metadata, response, members


def fetch_keys(
    metadata: ProviderMetadata,
    *,
    declaration: ProviderDeclaration,
    transport: Transport,
    timeout_seconds: float,
    now: datetime,
) -> tuple[JSONWebKeySet, Mapping[str, str]]:
    """Return the provider's keys for tokens, and the headers of the response, which has none if no
    request is needed.

    The keys by value precede those that a source fetches, and these the `jwks_uri`, which only TLS
    protects. Raises: TransportError, MetadataError.
    Spec: OIDC Discovery 3 (jwks_uri).
    """
    if metadata.statement is not None and metadata.statement.jwks is not None:
        return metadata.statement.jwks, {}
    source = find_metadata_source(declaration)
    if source is not None:
        found = source.find_keys(
            metadata,
            declaration=declaration,
            transport=transport,
            timeout_seconds=timeout_seconds,
            now=now,
        )
        if found is not None:
            return found
    response = transport.send(build_jwks_request(metadata), timeout_seconds=timeout_seconds)
    return process_jwks_response(response), response.headers


def fetch_oauth_members(
    response: TransportResponse,
    *,
    declaration: ProviderDeclaration,
    transport: Transport,
    timeout_seconds: float,
) -> Mapping[str, Any] | None:
    """Return the members of RFC 8414 if the response of OIDC Discovery lacks a needed member, or
    else none.

    None: the document could not be fetched for now.
    """
    members = None
    if response.status == 200:
        members = parse_json_body(response)

    known = {*(members or {}), *(name for name, _ in declaration.metadata_overrides)}
    needed = _list_needed_members(declaration)
    is_issuer = members is not None and members.get("issuer") == get_metadata_issuer(declaration)
    if not is_issuer or known >= needed:
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
        if found is not None and (is_complete or known | found.keys() >= needed):
            return found
        is_complete = is_complete and not is_outage_status(oauth_response.status)
    return {} if is_complete else None


def _list_needed_members(declaration: ProviderDeclaration) -> set[str]:
    is_fapi2 = declaration.profile == "fapi2"
    is_key_bound = declaration.dpop == "require"
    conditions = {
        "revocation_endpoint": True,
        "pushed_authorization_request_endpoint": declaration.par == "require",
        "dpop_signing_alg_values_supported": is_key_bound,
        "authorization_response_iss_parameter_supported": is_fapi2,
        "tls_client_certificate_bound_access_tokens": is_fapi2 and not is_key_bound,
    }
    needed = set()
    for name, is_needed in conditions.items():
        if is_needed:
            needed.add(name)
    return needed | list_members_needed_by_apps(declaration)


def list_members_needed_by_apps(declaration: ProviderDeclaration) -> set[str]:
    needed: set[str] = set()
    for list_members in metadata_needs:
        needed.update(list_members(declaration))
    return needed
