"""The providers of this process by name: what was declared, the way to them, and what they say of themselves."""

import os
import time
from collections.abc import Callable
from copy import copy
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver

from .. import conf
from ..config.providers import ProviderDeclaration
from ..errors import ProviderUnknown
from ..oidc.jwks import JSONWebKeySet, KeySet
from ..oidc.metadata import (
    ProviderMetadata,
    build_jwks_request,
    build_metadata_request,
    process_jwks_response,
    process_metadata_response,
)
from ..oidc.transport import Transport
from .http_transport import HTTPTransport
from .metadata_cache import CachedDocument, RemoteKeySet, parse_freshness_seconds


class Provider:
    """One OP: its declaration, the transport to it, and its metadata and keys as far as this process knows them."""

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
        self._metadata = CachedDocument(self._fetch_metadata, monotonic=monotonic)
        self._keys = CachedDocument(self._fetch_keys, monotonic=monotonic)

    def get_metadata(self, *, deadline: float) -> ProviderMetadata:
        """Return the OP's metadata, judged against the declaration. deadline: seconds.

        Raises: TransportError, MetadataError.
        Spec: OIDC Discovery 4.
        """
        return self._metadata.get(deadline=deadline)

    def get_key_set(self, *, deadline: float) -> KeySet:
        """Return the OP's keys, which are refetched when a token comes that none of them fits.

        deadline: seconds, for this call, and again for that refetch.

        Raises: TransportError, MetadataError.
        """
        self._keys.get(deadline=deadline)
        return RemoteKeySet(self._keys, deadline=deadline)

    def with_declaration(self, declaration: ProviderDeclaration) -> "Provider":
        """Return the same OP, its connections and what is known of it, for a request that asks more of it.

        Requires: a declaration that differs in nothing that metadata is judged by.
        """
        other = copy(self)
        other.declaration = declaration
        return other

    def _fetch_metadata(self, deadline: float) -> tuple[ProviderMetadata, float]:
        request = build_metadata_request(issuer=self.declaration.issuer)
        response = self.transport.send(request, deadline=deadline)
        return process_metadata_response(response, declaration=self.declaration), parse_freshness_seconds(
            response.headers
        )

    def _fetch_keys(self, deadline: float) -> tuple[JSONWebKeySet, float]:
        ends_at = self._monotonic() + deadline
        request = build_jwks_request(self.get_metadata(deadline=deadline))
        response = self.transport.send(request, deadline=ends_at - self._monotonic())
        return process_jwks_response(response), parse_freshness_seconds(response.headers)


# By process: what a child inherits is a client whose sockets and locks are its parent's.
_providers: dict[tuple[int, ProviderDeclaration], Provider] = {}


def get_provider(name: str | None = None) -> Provider:
    """Return the provider of that name, or the first declared; the same object for as long as it is declared so.

    Raises: ProviderUnknown.
    """
    declared = conf.providers()
    declaration = next(iter(declared.values()), None) if name is None else declared.get(name)
    if declaration is None:
        raise ProviderUnknown
    key = os.getpid(), declaration
    provider = _providers.get(key)
    if provider is None:
        transport = HTTPTransport(declaration)
        provider = _providers.setdefault(key, Provider(declaration=declaration, transport=transport))
    return provider


@receiver(setting_changed, dispatch_uid="django_phi_oidc.provider.registry")
def _clear_providers(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        _providers.clear()
