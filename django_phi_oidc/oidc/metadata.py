"""Provider metadata and keys (R2). Spec: OIDC Discovery 1.0 3 and 4, RFC 8414, 8705 5, 9126 5, 9207
3.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..config.loopback import is_loopback_http
from ..config.providers import DPoPMode, PARMode, ProviderDeclaration
from ..errors import Code, MetadataError, TransportError
from ..http.transport import (
    TransportRequest,
    TransportResponse,
    parse_json_body,
    raise_for_outage,
)
from .jwks import JSONWebKeySet, parse_jwks

REQUIRED_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
OPTIONAL_ENDPOINTS = (
    *("userinfo_endpoint", "revocation_endpoint", "introspection_endpoint", "end_session_endpoint"),
    "pushed_authorization_request_endpoint",
)
MTLS_ENDPOINTS = (
    *("token_endpoint", "userinfo_endpoint", "revocation_endpoint", "introspection_endpoint"),
    "pushed_authorization_request_endpoint",
)
"""Endpoints that get the client certificate, if one is declared."""

_URL_PATTERN = re.compile(r"[!#-;=?-\[\]_a-z~]{1,2048}")
"""The characters of RFC 3986. Some parsers drop other characters, so that two parsers could see
different hosts. The length is limited because urlsplit caches the last 128 URLs.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataStatement:
    """What another source than OIDC Discovery states about a provider, besides its metadata."""

    expires_at: datetime
    """When the metadata become invalid."""
    jwks: JSONWebKeySet | None = field(repr=False)
    """Keys for tokens, by value. None: the source has to fetch them, or they are at jwks_uri."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMetadata:
    """Metadata that satisfies the declaration. Missing endpoints are empty."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    revocation_endpoint: str = ""
    introspection_endpoint: str = ""
    end_session_endpoint: str = ""
    pushed_authorization_request_endpoint: str = ""
    require_pushed_authorization_requests: bool = False
    prompt_values_supported: tuple[str, ...] = ()
    """Empty if not published."""
    subject_types_supported: tuple[str, ...] = ()
    id_token_signing_alg_values_supported: tuple[str, ...] = ()
    authorization_response_iss_parameter_supported: bool = False
    tls_client_certificate_bound_access_tokens: bool = False
    metadata_issuer: str = ""
    """The issuer that the document names, if ID Tokens name another one."""
    acr_values_supported: tuple[str, ...] = ()
    """Empty if not published."""
    dpop_signing_alg_values_supported: tuple[str, ...] = ()
    """Empty without DPoP."""
    is_partial: bool = False
    """The document of RFC 8414 could not be fetched: it may contain what is missing here."""
    statement: "MetadataStatement | None" = None
    """What another source than OIDC Discovery adds, if the metadata are from one. jwks_uri may be
    empty then.
    """


def build_metadata_url(issuer: str) -> str:
    """Return the metadata URL. Spec: Discovery 4.1 (a terminating / is removed)."""
    return f"{issuer.removesuffix('/')}/.well-known/openid-configuration"


def build_metadata_request(declaration: ProviderDeclaration) -> TransportRequest:
    """Return the request for the metadata, at the declared URL or below the issuer. Spec: Discovery
    4.1.
    """
    url = declaration.metadata_url or build_metadata_url(declaration.issuer)
    return TransportRequest(
        method="GET", url=url, headers={"Accept": "application/json"}, operation="metadata"
    )


def build_oauth_metadata_requests(*, issuer: str) -> tuple[TransportRequest, ...]:
    """Return the requests for the metadata of RFC 8414 or SMART, to send in this order until one is
    answered with it.

    The first is that of RFC 8414. If the issuer has a path, the second is at its end, as in OIDC
    Discovery, which is where many providers publish it. The last one is SMART's, of a FHIR server
    that is its own issuer.
    Spec: RFC 8414 3, 3.1, 5; SMART App Launch 2.2 (Conformance, .well-known/smart-configuration).
    """
    parts = urlsplit(issuer.removesuffix("/"))
    name = "/.well-known/oauth-authorization-server"
    smart_path = f"{parts.path}/.well-known/smart-configuration"
    paths = dict.fromkeys((f"{name}{parts.path}", f"{parts.path}{name}", smart_path))
    metadata_requests = []
    for path in paths:
        metadata_requests.append(
            TransportRequest(
                method="GET",
                url=parts._replace(path=path).geturl(),
                headers={"Accept": "application/json"},
                operation="metadata",
            )
        )
    return tuple(metadata_requests)


def process_oauth_metadata_response(
    response: TransportResponse, *, issuer: str
) -> Mapping[str, Any] | None:
    """Return the members; None if the response is no metadata of this issuer, which is then not
    used.

    Spec: RFC 8414 3.2, 3.3.
    """
    members = None
    if response.status == 200:
        members = parse_json_body(response)
    if members is not None and members.get("issuer") == issuer:
        return members
    return None


def merge_metadata(
    members: Mapping[str, Any],
    *,
    oauth_members: Mapping[str, Any],
    declaration: ProviderDeclaration,
) -> dict[str, Any]:
    """Return the members of OIDC Discovery, with those of RFC 8414 that it lacks, and with the
    declared overrides.

    With a client certificate, endpoints are replaced by their aliases for mutual TLS, unless they
    are overridden.
    Requires: both are of the declared issuer. Spec: RFC 8705 5.
    """
    overrides = {}
    for name, value in declaration.metadata_overrides:
        overrides[name] = list(value) if isinstance(value, tuple) else value
    merged = {**oauth_members, **members}
    aliases = merged.get("mtls_endpoint_aliases")
    if declaration.client_certificate and isinstance(aliases, dict):
        merged |= {name: aliases[name] for name in MTLS_ENDPOINTS if name in aliases}
    return {**merged, **overrides}


def process_metadata_response(
    response: TransportResponse,
    *,
    declaration: ProviderDeclaration,
    oauth_members: Mapping[str, Any] | None = MappingProxyType({}),
) -> ProviderMetadata:
    """Return metadata of the declared issuer, with https endpoints and support for everything
    declared.

    oauth_members: of RFC 8414, for what the response lacks; None: they could not be fetched.

    Unknown members and the media type, which static hosts set as they like, are ignored. NOT
    checked: response_types_supported, code_challenge_methods_supported and
    token_endpoint_auth_methods_supported, which providers omit or get wrong. The provider refuses
    what it does not support.
    Raises: MetadataError; TransportError for an endpoint that is not https, or an outage. Spec:
    Discovery 3, 4.2, 4.3.
    """
    raise_for_outage(response)

    members = None
    if response.status == 200:
        members = parse_json_body(response)

    if members is None:
        raise MetadataError(Code.METADATA_INVALID)
    validate_issuer(members, issuer=get_metadata_issuer(declaration))
    members = merge_metadata(members, oauth_members=oauth_members or {}, declaration=declaration)
    return create_metadata(members, declaration=declaration, is_partial=oauth_members is None)


def create_metadata(
    members: Mapping[str, Any],
    *,
    declaration: ProviderDeclaration,
    is_partial: bool = False,
    statement: MetadataStatement | None = None,
) -> ProviderMetadata:
    """Return the metadata of these members, which must support everything declared.

    statement: with it, jwks_uri may be missing.

    Requires: the members are of the declared issuer. Raises: MetadataError; TransportError. Spec:
    Discovery 3.
    """
    if not isinstance(members.get("mtls_endpoint_aliases", {}), dict):
        raise MetadataError(Code.METADATA_INVALID)
    jwks_uri = ""
    if statement is None or "jwks_uri" in members:
        jwks_uri = _get_endpoint(members, "jwks_uri")
    metadata = ProviderMetadata(
        is_partial=is_partial,
        statement=statement,
        issuer=declaration.issuer,
        metadata_issuer=declaration.metadata_issuer,
        authorization_endpoint=_get_endpoint(members, "authorization_endpoint"),
        token_endpoint=_get_endpoint(members, "token_endpoint"),
        jwks_uri=jwks_uri,
        **{name: _get_endpoint(members, name) for name in OPTIONAL_ENDPOINTS if name in members},
        require_pushed_authorization_requests=_get_bool(
            members, "require_pushed_authorization_requests"
        ),
        prompt_values_supported=_get_strings(members, "prompt_values_supported"),
        subject_types_supported=_get_strings(members, "subject_types_supported"),
        id_token_signing_alg_values_supported=_get_strings(
            members, "id_token_signing_alg_values_supported"
        ),
        acr_values_supported=_find_strings(members, "acr_values_supported"),
        dpop_signing_alg_values_supported=_get_strings(
            members, "dpop_signing_alg_values_supported"
        ),
        authorization_response_iss_parameter_supported=_get_bool(
            members, "authorization_response_iss_parameter_supported"
        ),
        tls_client_certificate_bound_access_tokens=_get_bool(
            members, "tls_client_certificate_bound_access_tokens"
        ),
    )
    for name in ("issuer", *REQUIRED_ENDPOINTS, *OPTIONAL_ENDPOINTS):
        if url := getattr(metadata, name):
            validate_https_url(url, allow_loopback_http=declaration.allow_loopback_http)
    validate_alg_supported(metadata, allowed=declaration.id_token_signed_response_alg)
    if declaration.subject_type == "pairwise":
        validate_pairwise_supported(metadata)
    if declaration.revocation == "required":
        validate_revocation_supported(metadata)
    validate_par_supported(metadata, par=declaration.par)
    if declaration.dpop == "require":
        validate_dpop_supported(metadata)
    if declaration.profile == "fapi2":
        validate_fapi2_supported(metadata, dpop=declaration.dpop)
    return metadata


def build_jwks_request(metadata: ProviderMetadata) -> TransportRequest:
    """Return the request for the keys. Spec: Discovery 3 (jwks_uri), RFC 7517 8.5.2."""
    headers = {"Accept": "application/jwk-set+json, application/json"}
    return TransportRequest(method="GET", url=metadata.jwks_uri, headers=headers, operation="keys")


def process_jwks_response(response: TransportResponse) -> JSONWebKeySet:
    """Return the keys. Raises: MetadataError; TransportError for an outage. Spec: RFC 7517 5."""
    raise_for_outage(response)
    if response.status != 200:
        raise MetadataError(Code.METADATA_INVALID)
    return parse_jwks(response.body)


def validate_https_url(url: str, *, allow_loopback_http: bool) -> None:
    """`transport_not_https`: url is https with a host, without userinfo and fragment.

    http is accepted for a loopback address if that is allowed. Spec: Core 3.1.2.1, 3.1.3.1; RFC
    6749 3.1, 3.2.
    """
    parts = _split_url(url)
    if parts is None or not parts.hostname or "@" in parts.netloc or "#" in url:
        raise TransportError(Code.TRANSPORT_NOT_HTTPS)
    if parts.scheme != "https" and not (allow_loopback_http and is_loopback_http(url)):
        raise TransportError(Code.TRANSPORT_NOT_HTTPS)


def get_metadata_issuer(declaration: ProviderDeclaration) -> str:
    """Return the issuer that the metadata must name."""
    return declaration.metadata_issuer or declaration.issuer


def validate_issuer(members: Mapping[str, Any], *, issuer: str) -> None:
    """`issuer_mismatch`: issuer is exactly the declared one. Spec: Discovery 4.3."""
    if members.get("issuer") != issuer:
        raise MetadataError(Code.ISSUER_MISMATCH)


def validate_pairwise_supported(metadata: ProviderMetadata) -> None:
    """`pairwise_unsupported`: the provider supports pairwise subjects. Spec: Discovery 3, Core
    8.
    """
    if "pairwise" not in metadata.subject_types_supported:
        raise MetadataError(Code.PAIRWISE_UNSUPPORTED)


def validate_alg_supported(metadata: ProviderMetadata, *, allowed: tuple[str, ...]) -> None:
    """`alg_unsupported`: the provider signs ID Tokens with an allowed algorithm. Spec: Discovery
    3.
    """
    if not set(allowed) & set(metadata.id_token_signing_alg_values_supported):
        raise MetadataError(Code.ALG_UNSUPPORTED)


def validate_revocation_supported(metadata: ProviderMetadata) -> None:
    """`revocation_unsupported`: the provider has a revocation endpoint. Spec: RFC 8414 2, RFC
    7009.
    """
    if not metadata.revocation_endpoint:
        raise MetadataError(Code.REVOCATION_UNSUPPORTED)


def validate_par_supported(metadata: ProviderMetadata, *, par: PARMode) -> None:
    """`par_unsupported`: the provider supports PAR if we require it, and does not require it if we
    never use it.

    Spec: RFC 9126 5.
    """
    if par == "require" and not metadata.pushed_authorization_request_endpoint:
        raise MetadataError(Code.PAR_UNSUPPORTED)
    if par == "never" and metadata.require_pushed_authorization_requests:
        raise MetadataError(Code.PAR_UNSUPPORTED)


def validate_dpop_supported(metadata: ProviderMetadata) -> None:
    """`dpop_unsupported`: the provider accepts proofs that are signed with ES256. Spec: RFC 9449
    5.1.
    """
    if "ES256" not in metadata.dpop_signing_alg_values_supported:
        raise MetadataError(Code.DPOP_UNSUPPORTED)


def validate_fapi2_supported(metadata: ProviderMetadata, *, dpop: DPoPMode) -> None:
    """`profile_unsupported`: authorization responses have `iss`, and access tokens are bound to the
    client.

    Tokens are bound by DPoP if it is required (`dpop_unsupported`), else by the client certificate.
    Spec: FAPI 2.0 Security Profile 5.3.2.1, 5.3.3.2; RFC 9207 3; RFC 8705 3.3.
    """
    is_bound = dpop == "require" or metadata.tls_client_certificate_bound_access_tokens
    if not (metadata.authorization_response_iss_parameter_supported and is_bound):
        raise MetadataError(Code.PROFILE_UNSUPPORTED)


def _split_url(url: str) -> SplitResult | None:
    if not _URL_PATTERN.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 -- raises for an invalid port
    except ValueError:
        return None
    return parts


def _get_endpoint(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise MetadataError(Code.METADATA_INVALID)
    return value


def _get_strings(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = members.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise MetadataError(Code.METADATA_INVALID)
    return tuple(value)


def _find_strings(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return what is no more than a hint: no sign-in is refused because it is malformed."""
    value = members.get(name)
    if isinstance(value, list):
        strings = []
        for item in value:
            if isinstance(item, str):
                strings.append(item)
        return tuple(strings)
    return ()


def _get_bool(members: Mapping[str, Any], name: str) -> bool:
    value = members.get(name, False)
    if not isinstance(value, bool):
        raise MetadataError(Code.METADATA_INVALID)
    return value
