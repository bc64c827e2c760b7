"""Fetch the entity statements of a federation, from a provider up to the trust anchor."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ...config.providers import ProviderDeclaration
from ...errors import Code, MetadataError, SignInRefused, TransportError
from ...http.transport import Transport, TransportRequest
from ...oidc.jwks import JSONWebKeySet, parse_jwks
from ...oidc.metadata import validate_https_url
from .declaration import FederationDeclaration
from .entity_statement import (
    FEDERATION_ENTITY,
    OPENID_PROVIDER,
    EntityStatement,
    build_entity_configuration_request,
    build_subordinate_statement_request,
    process_statement_response,
    verify_entity_statement,
)
from .errors import FederationCode
from .trust_chain import MAX_STATEMENTS, TrustChain, validate_trust_chain

MAX_FETCHES = 16
"""For one chain. A provider can name many superiors, to make the portal send requests to others.
Spec: OpenID Federation 1.0 17.1.
"""
MAX_AUTHORITY_HINTS = 8
"""Of one entity; further ones are ignored."""


def fetch_trust_chain(
    declaration: ProviderDeclaration,
    *,
    transport: Transport,
    timeout_seconds: float,
    now: datetime,
    entity_identifier: str = "",
    entity_type: str = OPENID_PROVIDER,
) -> TrustChain:
    """Return the shortest valid trust chain from the issuer, or another entity, to the declared
    trust anchor.

    timeout_seconds: for all requests together. Requires: a federation is declared.
    Raises: TransportError, MetadataError. Spec: OpenID Federation 1.0 10.1 to 10.3.
    """
    federation = declaration.find_option(FederationDeclaration)
    if federation is None:
        raise MetadataError(FederationCode.TRUST_CHAIN_INVALID)
    search = _ChainSearch(
        declaration=declaration,
        federation=federation,
        transport=transport,
        ends_at=time.monotonic() + timeout_seconds,
        now=now,
        entity_type=entity_type,
    )
    return search.run(entity_identifier or declaration.issuer)


@dataclass(kw_only=True)
class _ChainSearch:
    """A search, one level of superiors after the other."""

    declaration: ProviderDeclaration
    federation: FederationDeclaration
    transport: Transport
    ends_at: float
    now: datetime
    entity_type: str
    fetch_count: int = 0
    error: SignInRefused = field(
        default_factory=lambda: MetadataError(FederationCode.TRUST_CHAIN_INVALID)
    )
    """Why a path does not lead to the trust anchor. An outage is reported before a fault of another
    path.
    """

    def run(self, entity_identifier: str) -> TrustChain:
        # The subject first: without it no other request is needed. Both are required for each
        # chain.
        subject = self._fetch_configuration(entity_identifier)
        anchor = self._fetch_configuration(self.federation.trust_anchor)
        keys = parse_jwks(self.federation.trust_anchor_keys.encode())
        verify_entity_statement(anchor, keys=keys, now=self.now, leeway=self.declaration.leeway)
        paths: list[tuple[EntityStatement, tuple[EntityStatement, ...]]] = [(subject, (subject,))]
        known = {entity_identifier}
        while paths:
            longer_paths = []
            for configuration, statements in paths:
                for superior in _list_superiors(configuration, first=anchor.sub):
                    if superior == anchor.sub:
                        if chain := self._find_chain(
                            statements, anchor=anchor, trust_anchor_keys=keys
                        ):
                            return chain
                    elif superior not in known and len(statements) + 2 < MAX_STATEMENTS:
                        known.add(superior)
                        longer_paths += self._find_longer_path(statements, superior=superior)
            paths = longer_paths
        raise self.error

    def _find_chain(
        self,
        statements: Sequence[EntityStatement],
        *,
        anchor: EntityStatement,
        trust_anchor_keys: JSONWebKeySet,
    ) -> TrustChain | None:
        try:
            last = self._fetch_subordinate_statement(anchor, sub=statements[-1].iss)
            return validate_trust_chain(
                [*statements, last, anchor],
                trust_anchor=anchor.sub,
                trust_anchor_keys=trust_anchor_keys,
                entity_type=self.entity_type,
                now=self.now,
                leeway=self.declaration.leeway,
            )
        except (MetadataError, TransportError) as error:
            self._record_error(error)
            return None

    def _find_longer_path(
        self, statements: tuple[EntityStatement, ...], *, superior: str
    ) -> list[tuple[EntityStatement, tuple[EntityStatement, ...]]]:
        """Return the path with the statement of a superior that is not the trust anchor; empty if
        it has none.
        """
        try:
            configuration = self._fetch_configuration(superior)
            statement = self._fetch_subordinate_statement(configuration, sub=statements[-1].iss)
        except (MetadataError, TransportError) as error:
            self._record_error(error)
            return []
        return [(configuration, (*statements, statement))]

    def _record_error(self, error: SignInRefused) -> None:
        if not isinstance(self.error, TransportError):
            self.error = error

    def _fetch_configuration(self, entity_identifier: str) -> EntityStatement:
        request = build_entity_configuration_request(entity_identifier)
        return self._fetch_statement(request, iss=entity_identifier, sub=entity_identifier)

    def _fetch_subordinate_statement(
        self, superior: EntityStatement, *, sub: str
    ) -> EntityStatement:
        """Spec: OpenID Federation 1.0 5.1.1: the endpoint must be in the entity configuration
        itself.
        """
        endpoint = (superior.find_metadata(FEDERATION_ENTITY) or {}).get(
            "federation_fetch_endpoint"
        )
        if not isinstance(endpoint, str):
            raise MetadataError(
                FederationCode.TRUST_CHAIN_INVALID, "A superior has no federation_fetch_endpoint."
            )
        validate_https_url(endpoint, allow_loopback_http=self.declaration.allow_loopback_http)
        request = build_subordinate_statement_request(endpoint, iss=superior.sub, sub=sub)
        return self._fetch_statement(request, iss=superior.sub, sub=sub)

    def _fetch_statement(self, request: TransportRequest, *, iss: str, sub: str) -> EntityStatement:
        self.fetch_count += 1
        if self.fetch_count > MAX_FETCHES:
            raise MetadataError(
                FederationCode.TRUST_CHAIN_INVALID,
                "The search for a trust chain needs too many requests.",
            )
        response = self.transport.send(request, timeout_seconds=self.ends_at - time.monotonic())
        if response.status >= 500 or response.status == 429:
            # An outage, and no statement about the entity.
            raise TransportError(
                Code.TRANSPORT_UNREACHABLE, "An entity of the federation is not available."
            )
        return process_statement_response(response, iss=iss, sub=sub)


def _list_superiors(configuration: EntityStatement, *, first: str) -> list[str]:
    """Return the superiors that the entity names, the trust anchor first: then no other is
    asked.
    """
    hints: list[str] = configuration.claims.get("authority_hints", [])
    return sorted(dict.fromkeys(hints), key=lambda hint: hint != first)[:MAX_AUTHORITY_HINTS]
