"""The trust chain of a provider as the source of its metadata and keys, in place of OIDC Discovery.
Spec: OpenID Federation 1.0 5.2.1, 10.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial

from ...config.providers import ProviderDeclaration
from ...errors import SignInRefused
from ...http.transport import Transport
from ...oidc.jwks import JSONWebKeySet
from ...oidc.metadata import ProviderMetadata
from ..common.provider_findings import MetadataDiagnosis, ProviderFinding, diagnose_request_error
from .declaration import FederationDeclaration
from .entity_statement import OPENID_RELYING_PARTY
from .entity_statements import fetch_trust_chain
from .federation_diagnostics import check_own_trust_chain, check_trust_chain
from .provider_metadata import (
    TrustChainStatement,
    build_signed_jwks_request,
    process_signed_jwks_response,
    process_trust_chain,
)

FRESH_CHAIN_SECONDS = 60 * 60
"""How long a trust chain is used before it is fetched again. OpenID Federation has no other
revocation.
"""


class TrustChainSource:
    """The source for providers that are declared as members of a federation."""

    def is_declared(self, declaration: ProviderDeclaration) -> bool:
        return declaration.find_option(FederationDeclaration) is not None

    def fetch_metadata(
        self,
        declaration: ProviderDeclaration,
        *,
        transport: Transport,
        timeout_seconds: float,
        now: datetime,
    ) -> tuple[ProviderMetadata, float]:
        chain = fetch_trust_chain(
            declaration, transport=transport, timeout_seconds=timeout_seconds, now=now
        )
        return process_trust_chain(chain, declaration=declaration), FRESH_CHAIN_SECONDS

    def find_keys(
        self,
        metadata: ProviderMetadata,
        *,
        declaration: ProviderDeclaration,
        transport: Transport,
        timeout_seconds: float,
        now: datetime,
    ) -> tuple[JSONWebKeySet, Mapping[str, str]] | None:
        statement = metadata.statement
        if not isinstance(statement, TrustChainStatement) or not statement.signed_jwks_uri:
            return None
        request = build_signed_jwks_request(statement.signed_jwks_uri)
        response = transport.send(request, timeout_seconds=timeout_seconds)
        keys = process_signed_jwks_response(
            response,
            federation_keys=statement.federation_keys,
            declaration=declaration,
            now=now,
        )
        return keys, response.headers

    def diagnose(
        self,
        declaration: ProviderDeclaration,
        *,
        transport: Transport,
        timeout_seconds: float,
        now: datetime,
    ) -> MetadataDiagnosis:
        try:
            chain = fetch_trust_chain(
                declaration, transport=transport, timeout_seconds=timeout_seconds, now=now
            )
        except SignInRefused as error:
            return MetadataDiagnosis(findings=[diagnose_request_error("federation", error)])
        findings = list(check_trust_chain(chain, now=now))
        findings.append(
            _check_own_membership(
                declaration, transport=transport, timeout_seconds=timeout_seconds, now=now
            )
        )
        return MetadataDiagnosis(
            findings=findings,
            members=chain.metadata,
            parse_metadata=partial(process_trust_chain, chain, declaration=declaration),
        )


trust_chain_source = TrustChainSource()


def _check_own_membership(
    declaration: ProviderDeclaration,
    *,
    transport: Transport,
    timeout_seconds: float,
    now: datetime,
) -> ProviderFinding:
    """Find the portal's own trust chain, as the provider does."""
    try:
        chain = fetch_trust_chain(
            declaration,
            transport=transport,
            timeout_seconds=timeout_seconds,
            now=now,
            entity_identifier=declaration.client_id,
            entity_type=OPENID_RELYING_PARTY,
        )
    except SignInRefused as error:
        return diagnose_request_error("membership", error, prefix=f"{declaration.client_id}: ")
    return check_own_trust_chain(chain, declaration=declaration)
