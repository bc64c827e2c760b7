"""The entity configuration of the portal, which providers fetch."""

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.generic import View

from ... import conf
from ..._internal import clock
from ..._internal.view_decorators import public_view
from ...claims import minimization
from ...config.providers import ProviderDeclaration
from ...login.client_metadata import list_public_keys, list_redirect_uris, set_cache_headers
from ..common.registration import ClientURLs
from .declaration import FederationDeclaration
from .entity_configuration import build_relying_party_metadata, create_entity_configuration
from .entity_statement import build_entity_configuration_url


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
        found = []
        for provider in conf.providers().values():
            if _is_at(request, provider):
                found.append(provider)
        if not found:
            raise Http404
        host = request.get_host()
        of_host = []
        for provider in found:
            if urlsplit(provider.client_id).netloc == host:
                of_host.append(provider)
        declaration = (of_host or found)[0]
        federation = declaration.find_option(FederationDeclaration)
        if federation is None:
            raise Http404
        providers = []
        for provider in found:
            if provider.client_id == declaration.client_id:
                providers.append(provider)
        metadata = build_own_metadata(declaration, federation, providers=providers)
        statement = create_entity_configuration(
            declaration.client_id, federation, metadata=metadata, now=clock.now()
        )
        return set_cache_headers(
            request, HttpResponse(statement, content_type="application/entity-statement+jwt")
        )


def _is_at(request: HttpRequest, provider: ProviderDeclaration) -> bool:
    """Return whether the path of the request is that of the portal's entity configuration for the
    provider.
    """
    if provider.find_option(FederationDeclaration) is None:
        return False
    url = build_entity_configuration_url(provider.client_id)
    return urlsplit(url).path == request.path


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
    redirect_uris = list_redirect_uris(origin, [provider.name for provider in providers])
    return build_relying_party_metadata(
        declaration,
        federation,
        client_urls=ClientURLs(
            callback=redirect_uris[0],
            logged_out=origin + reverse("oidc_logged_out"),
            backchannel_logout=origin + reverse("oidc_backchannel_logout"),
            frontchannel_logout=origin + reverse("oidc_frontchannel_logout"),
            jwks=origin + reverse("oidc_jwks"),
        ),
        redirect_uris=redirect_uris,
        keys=list(list_public_keys(providers)),
        scope=minimization.build_claims_request(
            conf.claims(), provider_declaration=declaration
        ).scope,
    )
