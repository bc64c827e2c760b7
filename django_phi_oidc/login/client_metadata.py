"""Public documents that providers fetch from this client: its keys, and the redirect URIs of its sector."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.generic import View

from .. import conf
from .._internal.view_decorators import public_view
from ..config.client_keys import ClientKey
from ..config.providers import ProviderDeclaration

PUBLIC_CACHE_CONTROL = "public, max-age=300"
"""A new key must be published for longer than this before it signs."""


@method_decorator(public_view, name="dispatch")
class ClientKeysView(View):
    """The `jwks_uri` of this client, for providers that use `private_key_jwt`. Spec: RFC 7517 5, 8.5.2; RFC 7591 2."""

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        keys = list(list_public_keys(conf.providers().values()))
        return _render_json_document(request, {"keys": keys}, content_type="application/jwk-set+json")


@method_decorator(public_view, name="dispatch")
class SectorIdentifierView(View):
    """The `sector_identifier_uri`: the redirect URIs here and at SECTOR_ORIGINS. Spec: OIDC Core 8.1."""

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        origins = dict.fromkeys([f"{request.scheme}://{request.get_host()}", *conf.sector_origins()])
        paths = [reverse("oidc_authentication_callback")]
        paths += [reverse("oidc_authentication_callback", kwargs={"provider": name}) for name in conf.providers()]
        urls = [f"{origin}{path}" for origin in origins for path in paths]
        return _render_json_document(request, urls, content_type="application/json")


def list_public_keys(providers: Iterable[ProviderDeclaration]) -> Iterator[Mapping[str, Any]]:
    """Yield each key once, with the `alg` that it signs with, or without `alg` when there are several."""
    algs: dict[ClientKey, set[str]] = {}
    for provider in providers:
        for key in provider.client_keys:
            algs.setdefault(key, set()).add(provider.get_assertion_alg(key))
    for key, names in algs.items():
        yield key.build_public_jwk(*names) if len(names) == 1 else key.build_public_jwk()


def _render_json_document(request: HttpRequest, content: Any, *, content_type: str) -> HttpResponse:
    response = JsonResponse(content, safe=False, content_type=content_type)
    # With SESSION_SAVE_EVERY_REQUEST this response may set a session cookie, which no shared cache may store.
    response["Cache-Control"] = "private, no-store" if request.COOKIES else PUBLIC_CACHE_CONTROL
    return response
