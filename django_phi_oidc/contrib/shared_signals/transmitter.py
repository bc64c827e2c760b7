"""The transmitter of a provider's security events: its metadata, its keys, and access to its
interface.
"""

import os
import time
from dataclasses import replace
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver
from django.views.decorators.debug import sensitive_variables

from ..._internal import clock, randomness, request_secrets
from ...errors import AccountError, Code, KeyNotFound
from ...http.transport import TransportRequest
from ...oidc.client_auth import AssertionFreshness
from ...oidc.jwks import JSONWebKeySet, KeySet
from ...oidc.metadata import process_jwks_response
from ...provider.metadata_cache import CachedDocument, RemoteKeySet, parse_freshness_seconds
from ...provider.registry import Provider, get_provider
from .client_credentials import (
    build_client_credentials_request,
    process_client_credentials_response,
)
from .declaration import SignalsDeclaration
from .event_stream import (
    TransmitterMetadata,
    build_transmitter_metadata_request,
    process_transmitter_metadata_response,
)

SCOPE = "ssf.read ssf.manage"
"""Spec: CAEP Interoperability Profile 1.0 2.7.1."""
_TOKEN_MARGIN_SECONDS = 30.0
_UNSTATED_LIFETIME_SECONDS = 60.0


class Transmitter:
    """The transmitter of one provider. Its metadata and keys are cached as those of the
    provider.
    """

    def __init__(self, provider: Provider, signals: SignalsDeclaration) -> None:
        self.provider = provider
        self.signals = signals
        self._metadata = CachedDocument(self._fetch_metadata, monotonic=time.monotonic)
        self._keys = CachedDocument(self._fetch_keys, monotonic=time.monotonic)
        self._access_token = ""
        self._token_valid_until = 0.0

    def get_metadata(self, *, timeout_seconds: float) -> TransmitterMetadata:
        """Return the validated metadata. Raises: TransportError, MetadataError. Spec: SSF 1.0 7."""
        return self._metadata.get(timeout_seconds=timeout_seconds)

    def get_key_set(self, *, timeout_seconds: float) -> KeySet:
        """Return the keys of its events. timeout_seconds: now, and for each later fetch.

        Raises: TransportError, MetadataError. Spec: SSF 1.0 4.1.1.
        """
        self._keys.get(timeout_seconds=timeout_seconds)
        return RemoteKeySet(
            self._keys,
            read_keys=lambda keys: keys,
            source="anyone",
            timeout_seconds=timeout_seconds,
        )

    @sensitive_variables()
    def get_access_token(self, *, timeout_seconds: float, is_renewed: bool = False) -> str:
        """Return the declared Bearer token, or one of the provider, which this process keeps until
        it expires.

        is_renewed: the transmitter has refused the kept one.
        Raises: TransportError, MetadataError, TokenResponseError. Spec: RFC 6749 4.4.
        """
        if self.signals.access_token:
            return self.signals.access_token
        if not is_renewed and time.monotonic() < self._token_valid_until:
            return self._access_token
        ends_at = time.monotonic() + timeout_seconds
        request = build_client_credentials_request(
            scope=SCOPE,
            metadata=self.provider.get_metadata(timeout_seconds=timeout_seconds),
            declaration=self.provider.declaration,
            freshness=AssertionFreshness(now=clock.now(), jti=randomness.token_b64url(32)),
        )
        response = self.provider.transport.send(
            replace(request, is_background=True), timeout_seconds=ends_at - time.monotonic()
        )
        tokens = process_client_credentials_response(
            response, declaration=self.provider.declaration
        )
        request_secrets.register_secret(tokens.access_token, "access_token")

        if tokens.expires_in:
            seconds = tokens.expires_in.total_seconds()
        else:
            seconds = _UNSTATED_LIFETIME_SECONDS

        # In this order: another thread that reads the new time must not read the former token.
        self._access_token = tokens.access_token
        self._token_valid_until = time.monotonic() + seconds - _TOKEN_MARGIN_SECONDS
        return tokens.access_token

    def _fetch_metadata(self, timeout_seconds: float) -> tuple[TransmitterMetadata, float]:
        declaration = self.provider.declaration
        request = build_transmitter_metadata_request(declaration, self.signals)
        response = self.provider.transport.send(request, timeout_seconds=timeout_seconds)
        metadata = process_transmitter_metadata_response(
            response, declaration=declaration, signals=self.signals
        )
        return metadata, parse_freshness_seconds(response.headers)

    def _fetch_keys(self, timeout_seconds: float) -> tuple[JSONWebKeySet, float]:
        ends_at = time.monotonic() + timeout_seconds
        request = TransportRequest(
            method="GET",
            url=self.get_metadata(timeout_seconds=timeout_seconds).jwks_uri,
            headers={"Accept": "application/jwk-set+json, application/json"},
            operation="signals_keys",
        )
        response = self.provider.transport.send(request, timeout_seconds=ends_at - time.monotonic())
        keys = process_jwks_response(response)
        if not keys.has_usable_key():
            # Not certain: a set that is published by mistake must not make an event invalid for
            # good.
            raise KeyNotFound("No published key can verify a signature.", is_certain=False)
        return keys, parse_freshness_seconds(response.headers)


# Keyed by process id: a forked child has no use for the locks of its parent.
_transmitters: dict[tuple[int, Provider], Transmitter] = {}


def get_transmitter(provider_name: str) -> Transmitter:
    """Return the transmitter of that provider. Raises: ProviderUnknown, also if it sends no
    events.
    """
    provider = get_provider(provider_name)
    signals = provider.declaration.find_option(SignalsDeclaration)
    if signals is None:
        raise AccountError(Code.PROVIDER_UNKNOWN)
    key = os.getpid(), provider
    if transmitter := _transmitters.get(key):
        return transmitter
    return _transmitters.setdefault(key, Transmitter(provider, signals))


@receiver(setting_changed, dispatch_uid="django_phi_oidc.contrib.shared_signals.transmitter")
def _clear_transmitters(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        _transmitters.clear()
