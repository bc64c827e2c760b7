"""The declared providers of this process, by name, with their transport, metadata and keys."""

import os
import time
from collections.abc import Callable
from copy import copy
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver

from .. import conf
from ..config.providers import ProviderDeclaration
from ..errors import AccountError, Code, KeyNotFound
from ..oidc.jwks import JSONWebKeySet, KeySet
from ..oidc.metadata import ProviderMetadata, build_jwks_request, process_jwks_response
from ..oidc.transport import Transport
from .http_transport import HTTPTransport
from .metadata_cache import MIN_FRESH_SECONDS, CachedDocument, RemoteKeySet, TokenSource, parse_freshness_seconds
from .metadata_documents import fetch_metadata


class Provider:
    """A provider: its declaration, the transport to it, and its metadata and keys as cached in this process."""

    def __init__(
        self, *, declaration: ProviderDeclaration, transport: Transport, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.declaration = declaration
        self.transport = transport
        self._monotonic = monotonic
        self._metadata = CachedDocument(self._fetch_metadata, monotonic=monotonic)
        self._keys = CachedDocument(self._fetch_keys, monotonic=monotonic)

    def get_metadata(self, *, timeout_seconds: float) -> ProviderMetadata:
        """Return the validated metadata. Raises: TransportError, MetadataError. Spec: OIDC Discovery 4."""
        return self._metadata.get(timeout_seconds=timeout_seconds)

    def get_key_set(self, *, timeout_seconds: float, source: TokenSource = "anyone") -> KeySet:
        """Return the keys for tokens of that source. timeout_seconds: now, and for each later fetch.

        Raises: TransportError, MetadataError.
        """
        self._keys.get(timeout_seconds=timeout_seconds)
        return RemoteKeySet(self._keys, source=source, timeout_seconds=timeout_seconds)

    def with_declaration(self, declaration: ProviderDeclaration) -> "Provider":
        """Return the same provider, sharing connections and caches, for a request with stricter requirements.

        Requires: the declarations differ in nothing that metadata is validated against.
        """
        other = copy(self)
        other.declaration = declaration
        return other

    def _fetch_metadata(self, timeout_seconds: float) -> tuple[ProviderMetadata, float]:
        metadata, response, _ = fetch_metadata(
            self.declaration, transport=self.transport, timeout_seconds=timeout_seconds
        )
        return metadata, MIN_FRESH_SECONDS if metadata.is_partial else parse_freshness_seconds(response.headers)

    def _fetch_keys(self, timeout_seconds: float) -> tuple[JSONWebKeySet, float]:
        ends_at = self._monotonic() + timeout_seconds
        request = build_jwks_request(self.get_metadata(timeout_seconds=timeout_seconds))
        response = self.transport.send(request, timeout_seconds=ends_at - self._monotonic())
        keys = process_jwks_response(response)
        if not keys.has_usable_key():
            # Not certain: a set that is published by mistake must not make a logout token invalid for good.
            raise KeyNotFound("No published key can verify a signature.", is_certain=False)
        return keys, parse_freshness_seconds(response.headers)


# Keyed by process id: the sockets and locks of an inherited client belong to the parent process.
_providers: dict[tuple[int, ProviderDeclaration], Provider] = {}


def get_provider(name: str | None = None) -> Provider:
    """Return the provider of that name, or the first; one object per declaration. Raises: ProviderUnknown."""
    providers = conf.providers()
    declaration = next(iter(providers.values()), None) if name is None else providers.get(name)
    if declaration is None:
        raise AccountError(Code.PROVIDER_UNKNOWN)
    key = os.getpid(), declaration
    if provider := _providers.get(key):
        return provider
    return _providers.setdefault(key, Provider(declaration=declaration, transport=HTTPTransport(declaration)))


@receiver(setting_changed, dispatch_uid="django_phi_oidc.provider.registry")
def _clear_providers(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        _providers.clear()
