"""Public documents that providers fetch from this client: its keys, and the redirect URIs of its
sector.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.generic import View

from .. import conf
from .._internal.view_decorators import public_view
from ..config.certificates import build_certificate_jwk, read_certificate_chain
from ..config.client_keys import ClientKey
from ..config.providers import ProviderDeclaration
from ..errors import DeclarationInvalid

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
        urls = list_redirect_uris(f"{request.scheme}://{request.get_host()}", conf.providers())
        return _render_json_document(request, urls, content_type="application/json")


def list_redirect_uris(origin: str, provider_names: Collection[str]) -> list[str]:
    """Return the callback URLs at that origin and at those of SECTOR_ORIGINS."""
    paths = [reverse("oidc_authentication_callback")]
    for name in provider_names:
        paths.append(reverse("oidc_authentication_callback", kwargs={"provider": name}))
    urls = []
    for sector_origin in dict.fromkeys([origin, *conf.sector_origins()]):
        for path in paths:
            urls.append(f"{sector_origin}{path}")
    return urls


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
            # Check E106 reports a file that cannot be read. The keys of other providers must still
            # be published.
            with suppress(DeclarationInvalid):
                jwk = build_certificate_jwk(read_certificate_chain(provider.client_certificate))
                if jwk["kid"] not in kids:
                    kids.add(jwk["kid"])
                    yield jwk


def _render_json_document(request: HttpRequest, content: Any, *, content_type: str) -> HttpResponse:
    return set_cache_headers(request, JsonResponse(content, safe=False, content_type=content_type))


def set_cache_headers(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Let caches store a public document, and return it."""
    # With SESSION_SAVE_EVERY_REQUEST this response may set a session cookie, which no shared cache
    # may store.
    if request.COOKIES:
        response["Cache-Control"] = "private, no-store"
    else:
        response["Cache-Control"] = PUBLIC_CACHE_CONTROL
    return response
