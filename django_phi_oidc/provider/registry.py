"""The declared providers of this process, by name, with their transport, metadata and keys."""

import os
import time
from collections.abc import Callable
from copy import copy
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver

from .. import conf
from .._internal import clock
from ..config.providers import ProviderDeclaration
from ..errors import AccountError, Code, KeyNotFound
from ..http.http_transport import HTTPTransport
from ..http.transport import Transport
from ..oidc.jwks import JSONWebKeySet, KeySet
from ..oidc.metadata import ProviderMetadata
from .metadata_cache import (
    MIN_FRESH_SECONDS,
    CachedDocument,
    RemoteKeySet,
    TokenSource,
    parse_freshness_seconds,
)
from .metadata_documents import fetch_keys, fetch_metadata, find_metadata_source


class Provider:
    """A provider: its declaration, the transport to it, and its metadata and keys as cached in this
    process.
    """

    def __init__(
        self,
        *,
        declaration: ProviderDeclaration,
        transport: Transport,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.declaration = declaration
        self.transport = transport
        self._monotonic = monotonic
        self._metadata = CachedDocument(
            self._fetch_metadata, monotonic=monotonic, find_validity_seconds=_find_validity_seconds
        )
        self._keys = CachedDocument(self._fetch_keys, monotonic=monotonic)

    def get_metadata(self, *, timeout_seconds: float) -> ProviderMetadata:
        """Return the validated metadata, of discovery or, if an app registers a source for the
        provider, of that source only.

        Raises: TransportError, MetadataError. Spec: OIDC Discovery 4.
        """
        return self._metadata.get(timeout_seconds=timeout_seconds)

    def get_key_set(self, *, timeout_seconds: float, source: TokenSource = "anyone") -> KeySet:
        """Return the keys for tokens of that source. timeout_seconds: now, and for each later
        fetch.

        Raises: TransportError, MetadataError.
        """
        if find_metadata_source(self.declaration) is not None:
            # An expired statement makes the keys unusable, too.
            statement = self.get_metadata(timeout_seconds=timeout_seconds).statement
            if statement is not None and statement.jwks is not None:
                return RemoteKeySet(
                    self._metadata,
                    read_keys=_read_keys_by_value,
                    source=source,
                    timeout_seconds=timeout_seconds,
                )
        self._keys.get(timeout_seconds=timeout_seconds)
        return RemoteKeySet(
            self._keys, read_keys=lambda keys: keys, source=source, timeout_seconds=timeout_seconds
        )

    def with_declaration(self, declaration: ProviderDeclaration) -> "Provider":
        """Return the same provider, sharing connections and caches, for a request with stricter
        requirements.

        Requires: the declarations differ in nothing that metadata is validated against.
        """
        other = copy(self)
        other.declaration = declaration
        return other

    def _fetch_metadata(self, timeout_seconds: float) -> tuple[ProviderMetadata, float]:
        source = find_metadata_source(self.declaration)
        if source is not None:
            return source.fetch_metadata(
                self.declaration,
                transport=self.transport,
                timeout_seconds=timeout_seconds,
                now=clock.now(),
            )
        metadata, response, _ = fetch_metadata(
            self.declaration, transport=self.transport, timeout_seconds=timeout_seconds
        )
        if metadata.is_partial:
            return metadata, MIN_FRESH_SECONDS
        return metadata, parse_freshness_seconds(response.headers)

    def _fetch_keys(self, timeout_seconds: float) -> tuple[JSONWebKeySet, float]:
        ends_at = self._monotonic() + timeout_seconds
        metadata = self.get_metadata(timeout_seconds=timeout_seconds)
        keys, headers = fetch_keys(
            metadata,
            declaration=self.declaration,
            transport=self.transport,
            timeout_seconds=ends_at - self._monotonic(),
            now=clock.now(),
        )
        if not keys.has_usable_key():
            # Not certain: a set that is published by mistake must not make a logout token invalid
            # for good.
            raise KeyNotFound("No published key can verify a signature.", is_certain=False)
        return keys, parse_freshness_seconds(headers)


def _find_validity_seconds(metadata: ProviderMetadata) -> float | None:
    """Return how much longer the metadata are valid; None: without limit."""
    if metadata.statement is None:
        return None
    return (metadata.statement.expires_at - clock.now()).total_seconds()


def _read_keys_by_value(metadata: ProviderMetadata) -> JSONWebKeySet:
    keys = None
    if metadata.statement is not None:
        keys = metadata.statement.jwks

    if keys is None:
        raise KeyNotFound("The provider publishes its keys otherwise now.", is_certain=False)
    return keys


# Keyed by process id: the sockets and locks of an inherited client belong to the parent process.
_providers: dict[tuple[int, ProviderDeclaration], Provider] = {}


def get_provider(name: str | None = None) -> Provider:
    """Return the provider of that name, or the first; one object per declaration. Raises:
    ProviderUnknown.
    """
    providers = conf.providers()

    if name is None:
        declaration = next(iter(providers.values()), None)
    else:
        declaration = providers.get(name)

    if declaration is None:
        raise AccountError(Code.PROVIDER_UNKNOWN)
    key = os.getpid(), declaration
    if provider := _providers.get(key):
        return provider
    return _providers.setdefault(
        key, Provider(declaration=declaration, transport=HTTPTransport(declaration))
    )


@receiver(setting_changed, dispatch_uid="django_phi_oidc.provider.registry")
def _clear_providers(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        _providers.clear()
