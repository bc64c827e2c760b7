"""Public documents that providers fetch from this client: its keys, the redirect URIs of its
sector, its federation.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.generic import View

from .. import conf
from .._internal import clock
from .._internal.view_decorators import public_view
from ..claims import minimization
from ..config.certificates import build_certificate_jwk, read_certificate_chain
from ..config.client_keys import ClientKey
from ..config.providers import ProviderDeclaration
from ..contrib.federation.declaration import FederationDeclaration
from ..contrib.federation.entity_configuration import (
    build_relying_party_metadata,
    create_entity_configuration,
)
from ..contrib.federation.entity_statement import build_entity_configuration_url
from ..errors import DeclarationInvalid
from ..oidc.registration import ClientURLs

PUBLIC_CACHE_CONTROL = "public, max-age=300"
"""A new key must be published for longer than this before it signs."""


@method_decorator(public_view, name="dispatch")
class ClientKeysView(View):
    """The `jwks_uri` of this client: its keys that sign, and those to encrypt tokens with;
    self-signed certificates.

    Spec: RFC 7517 5, 8.5.2; RFC 7591 2; RFC 8705 2.2.2.
    """

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        keys = list(list_public_keys(conf.providers().values()))
        return _render_json_document(
            request, {"keys": keys}, content_type="application/jwk-set+json"
        )


@method_decorator(public_view, name="dispatch")
class SectorIdentifierView(View):
    """The `sector_identifier_uri`: the redirect URIs here and at SECTOR_ORIGINS. Spec: OIDC Core
    8.1.
    """

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        urls = _list_redirect_uris(f"{request.scheme}://{request.get_host()}", conf.providers())
        return _render_json_document(request, urls, content_type="application/json")


@method_decorator(public_view, name="dispatch")
class EntityConfigurationView(View):
    """The entity configuration of the portal: the path is that of an entity identifier, a
    `client_id`.

    Providers with the same `client_id` share it; check E132 compares them. The host of the request
    only chooses among several entity identifiers, whose hosts are in the URLs. Spec: OpenID
    Federation 1.0 9.
    """

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        found = [
            (provider, provider.federation)
            for provider in conf.providers().values()
            if provider.federation is not None
            and urlsplit(build_entity_configuration_url(provider.client_id)).path == request.path
        ]
        of_host = [
            pair for pair in found if urlsplit(pair[0].client_id).netloc == request.get_host()
        ]
        if not found:
            raise Http404
        declaration, federation = (of_host or found)[0]
        providers = [
            provider for provider, _ in found if provider.client_id == declaration.client_id
        ]
        metadata = build_own_metadata(declaration, federation, providers=providers)
        statement = create_entity_configuration(
            declaration.client_id, federation, metadata=metadata, now=clock.now()
        )
        return _set_cache_headers(
            request, HttpResponse(statement, content_type="application/entity-statement+jwt")
        )


def build_own_metadata(
    declaration: ProviderDeclaration,
    federation: FederationDeclaration,
    *,
    providers: Collection[ProviderDeclaration],
) -> dict[str, Any]:
    """Return the portal's metadata as a relying party. providers: of this entity identifier, the
    declared one included.

    Spec: OpenID Federation 1.0 5.1.2.
    """
    parts = urlsplit(declaration.client_id)
    origin = f"{parts.scheme}://{parts.netloc}"
    names = ("logged_out", "backchannel_logout", "frontchannel_logout", "jwks")
    urls = {name: origin + reverse(f"oidc_{name}") for name in names}
    redirect_uris = _list_redirect_uris(origin, [provider.name for provider in providers])
    return build_relying_party_metadata(
        declaration,
        federation,
        client_urls=ClientURLs(callback=redirect_uris[0], **urls),
        redirect_uris=redirect_uris,
        keys=list(list_public_keys(providers)),
        scope=minimization.build_claims_request(
            conf.claims(), provider_declaration=declaration
        ).scope,
    )


def _list_redirect_uris(origin: str, provider_names: Collection[str]) -> list[str]:
    """Return the callback URLs at that origin and at those of SECTOR_ORIGINS."""
    paths = [reverse("oidc_authentication_callback")]
    paths += [
        reverse("oidc_authentication_callback", kwargs={"provider": name})
        for name in provider_names
    ]
    return [
        f"{each}{path}"
        for each in dict.fromkeys([origin, *conf.sector_origins()])
        for path in paths
    ]


def list_public_keys(providers: Collection[ProviderDeclaration]) -> Iterator[Mapping[str, Any]]:
    """Yield each key once. One that signs has its `alg`, unless there are several.

    Self-signed certificates of TLS connections are among them. Spec: RFC 8705 2.2.2.
    """
    algs: dict[ClientKey, set[str]] = {}
    for provider in providers:
        for key in provider.client_keys:
            algs.setdefault(key, set()).update(
                provider.list_signing_algs(key) if key.use == "sig" else []
            )
    for key, names in algs.items():
        if len(names) == 1:
            yield key.build_public_jwk(*names)
        else:
            yield key.build_public_jwk()
    kids = {key.kid for key in algs}
    for provider in providers:
        if (
            provider.client_certificate
            and provider.token_endpoint_auth_method == "self_signed_tls_client_auth"
        ):
            # A file that cannot be read is check E106, and must not withdraw the keys of other
            # providers.
            with suppress(DeclarationInvalid):
                jwk = build_certificate_jwk(read_certificate_chain(provider.client_certificate))
                if jwk["kid"] not in kids:
                    kids.add(jwk["kid"])
                    yield jwk


def _render_json_document(request: HttpRequest, content: Any, *, content_type: str) -> HttpResponse:
    return _set_cache_headers(request, JsonResponse(content, safe=False, content_type=content_type))


def _set_cache_headers(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    # With SESSION_SAVE_EVERY_REQUEST this response may set a session cookie, which no shared cache
    # may store.
    if request.COOKIES:
        response["Cache-Control"] = "private, no-store"
    else:
        response["Cache-Control"] = PUBLIC_CACHE_CONTROL
    return response
