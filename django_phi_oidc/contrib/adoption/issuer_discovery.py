"""Find the issuer of a provider from its endpoints, as mozilla-django-oidc and django-allauth
declare them.

Only documents of OIDC Discovery are requested, from the hosts of the declared URLs, without any
secret.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...config.loopback import is_loopback_http
from ...config.option_parsers import is_secure_url
from ...config.providers import MAX_ISSUER_LENGTH, ProviderDeclaration
from ...errors import TransportError
from ...http.http_transport import HTTPTransport
from ...http.transport import Transport, parse_json_body
from ...oidc.metadata import build_metadata_request, build_metadata_url, merge_metadata
from ...provider.metadata_documents import fetch_oauth_members

TIMEOUT_SECONDS = 5.0
"""For each response."""
MAX_CANDIDATES = 6
"""For each host."""
_ENTRA_PATTERN = re.compile(r"https://login\.microsoftonline\.(?:com|us)/[^/]+(?=/)")
WELL_KNOWN_PATH = "/.well-known/"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveredProvider:
    """An issuer with the metadata that it publishes."""

    issuer: str
    members: Mapping[str, Any] = field(repr=False)

    @property
    def needs_loopback_http(self) -> bool:
        return is_loopback_http(self.issuer)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """How the project reaches the provider."""

    ca_bundle: str = ""
    proxy: str = field(default="", repr=False)


def find_provider_of_endpoints(
    endpoints: Mapping[str, str], *, connection: ConnectionOptions
) -> DiscoveredProvider | None:
    """Return the provider whose metadata has one of these endpoints, or None.

    endpoints: name in the metadata → URL. Issuers are tried that begin as an endpoint does, the
    longest first.
    """
    unreachable: set[str] = set()
    for issuer in _list_candidates(list(endpoints.values())):
        host = urlsplit(issuer).netloc
        if host in unreachable:
            continue
        try:
            found = fetch_provider(issuer, connection=connection)
        except TransportError:
            unreachable.add(host)
            continue
        if found and any(found.members.get(name) == url for name, url in endpoints.items()):
            return found
    return None


def fetch_provider(issuer: str, *, connection: ConnectionOptions) -> DiscoveredProvider | None:
    """Return the provider with the metadata below that URL; None if it has none, or no valid
    issuer.

    The issuer may differ from the URL by a slash at its end, or, as with a tenant's name at
    Microsoft Entra ID, by its path. It must publish itself. Raises: TransportError.
    """
    for _ in range(2):
        declaration = _build_declaration(issuer, connection)
        if declaration is None:
            return None
        transport = HTTPTransport(declaration)
        members = _fetch_members(declaration, transport)
        found = members.get("issuer")
        if not isinstance(found, str) or len(found) > MAX_ISSUER_LENGTH or not is_secure_url(found):
            return None
        if build_metadata_url(found) == build_metadata_url(issuer):
            return DiscoveredProvider(issuer=found, members=members)
        issuer = found
    return None


def _fetch_members(declaration: ProviderDeclaration, transport: Transport) -> dict[str, Any]:
    response = transport.send(build_metadata_request(declaration), timeout_seconds=TIMEOUT_SECONDS)
    members = None
    if response.status == 200:
        members = parse_json_body(response)

    if members is None:
        return {}
    oauth_members = fetch_oauth_members(
        response, declaration=declaration, transport=transport, timeout_seconds=TIMEOUT_SECONDS
    )
    return merge_metadata(members, oauth_members=oauth_members or {}, declaration=declaration)


def _build_declaration(issuer: str, connection: ConnectionOptions) -> ProviderDeclaration | None:
    if not is_secure_url(issuer):
        return None
    return ProviderDeclaration(
        name="adoption",
        issuer=issuer,
        client_id="unused",
        ca_bundle=connection.ca_bundle,
        proxy=connection.proxy,
        allow_loopback_http=is_loopback_http(issuer),
    )


def _list_candidates(endpoints: Sequence[str]) -> Iterator[str]:
    """Yield possible issuers without duplicates, at most MAX_CANDIDATES for each host."""
    seen: dict[str, set[str]] = {}
    for url in filter(is_secure_url, endpoints):
        for issuer in _list_prefixes(url):
            of_host = seen.setdefault(urlsplit(issuer).netloc, set())
            if issuer not in of_host and len(of_host) < MAX_CANDIDATES:
                of_host.add(issuer)
                yield issuer


def _list_prefixes(url: str) -> Iterator[str]:
    # Not a prefix of its endpoints.
    if entra := _ENTRA_PATTERN.match(url):
        yield f"{entra[0]}/v2.0"
    url = url.partition("?")[0]
    prefix, found, _ = url.partition(WELL_KNOWN_PATH)
    if found:
        yield prefix
    origin = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
    while len(prefix) > len(origin):
        prefix = prefix.rpartition("/")[0]
        yield prefix
