"""Verification of the access token of a request, for each API of the portal.

UserInfo is not used, because it does not say for which audience a token was issued.
Spec: RFC 6750, RFC 9068, RFC 7662, RFC 8705 3, RFC 9440, RFC 9449.
"""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from ...audit import conf as audit_conf
from ...audit.declaration import Network
from ...audit.request_context import is_from_trusted_proxy
from ...config.certificates import compute_certificate_thumbprint
from ...config.providers import ProviderDeclaration
from ...errors import KeyNotFound
from ...provider.registry import get_provider
from ..common.api_errors import AccessTokenInvalid
from ..common.dpop_proofs import VerifiedProof, verify_proof
from . import conf as apis_conf
from .access_token import AccessToken, ResourceServer, verify_access_token
from .introspection_cache import introspect_token

PROVIDER_TIMEOUT_SECONDS = 2.0
"""For each call to the provider. Short, because an API client is waiting."""
_BYTE_SEQUENCE = re.compile(r":((?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?):")
"""Spec: RFC 8941 3.3.5. Servers join repeated headers by a comma, which no byte sequence
contains.
"""


def list_needed_metadata(declaration: ProviderDeclaration) -> list[str]:
    """Return the members of the provider's metadata that the verification of its tokens needs."""
    api = apis_conf.apis().get(declaration.name)
    if api is not None and api.method == "introspection":
        return ["introspection_endpoint"]
    return []


@sensitive_variables("token")
def verify_bearer_token(
    token: str, *, audience: ResourceServer, proofs: Mapping[str, str], now: datetime
) -> AccessToken:
    """Return the verified access token, by its signature or by introspection, as the API is
    declared.

    proofs: of this request, as of validate_confirmation.
    Raises: AccessTokenInvalid; TransportError, MetadataError, IntrospectionFailed, if it could not
    be verified.
    Spec: RFC 9068 4; RFC 7662 2; RFC 8705 3.
    """
    provider = get_provider(audience.provider.name)
    timeout = PROVIDER_TIMEOUT_SECONDS
    if audience.api.method == "introspection":
        return introspect_token(
            token,
            audience=audience,
            provider=provider,
            proofs=proofs,
            now=now,
            timeout_seconds=timeout,
        )
    try:
        keys = provider.get_key_set(timeout_seconds=timeout)
        return verify_access_token(
            token, keys=keys, resource_server=audience, proofs=proofs, now=now
        )
    except KeyNotFound as error:
        # Not certain: the keys could not be fetched again now, so the provider may have a newer
        # key.
        if not error.is_certain:
            raise
        raise AccessTokenInvalid(error.code) from error


@sensitive_variables("token")
def verify_request_token(
    request: HttpRequest,
    *,
    token: str,
    audience: ResourceServer,
    proof: VerifiedProof | None,
    now: datetime,
) -> AccessToken:
    """Return the token, if the request proves possession of each key that it is bound to."""
    proofs: dict[str, str] = {}
    if audience.api.allow_client_cert_header:
        proofs = get_certificate_proofs(request, trusted_proxies=audit_conf.trusted_proxies())
    if proof:
        proofs["jkt"] = proof.thumbprint
    access_token = verify_bearer_token(token, audience=audience, proofs=proofs, now=now)
    if proof and "jkt" not in dict(access_token.confirmation):
        raise AccessTokenInvalid("cnf_missing")
    return access_token


@sensitive_variables("token")
def verify_request_proof(request: HttpRequest, *, token: str, now: datetime) -> VerifiedProof:
    """Return the proof of a request for the URL by which the portal is reached. Spec: RFC 9449 4.3,
    7.1.
    """
    # Servers join repeated headers by a comma, which no proof contains.
    proof = request.META.get("HTTP_DPOP", "")
    url = request.build_absolute_uri()
    return verify_proof(proof, method=str(request.method), url=url, now=now, access_token=token)


def get_certificate_proofs(
    request: HttpRequest, *, trusted_proxies: Sequence[Network]
) -> dict[str, str]:
    """Return the thumbprint of the certificate in `Client-Cert`, by its member of `cnf`; empty if
    there is none.

    The header of another sender than a trusted proxy is not read. Requires: the proxy has verified
    that the client has the private key, and removes the header from requests of clients. Spec: RFC
    9440 2.2, 4; RFC 8705 3.1.
    """
    header = _BYTE_SEQUENCE.fullmatch(request.META.get("HTTP_CLIENT_CERT", "").strip())
    if header is None or not is_from_trusted_proxy(request, trusted_proxies=trusted_proxies):
        return {}
    return {"x5t#S256": compute_certificate_thumbprint(b64decode(header[1]))}
