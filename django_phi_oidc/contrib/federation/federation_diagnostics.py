"""Checks of trust chains: of a provider, and of the portal itself. No Django."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from ...config.providers import ProviderDeclaration
from ..common.provider_findings import ProviderFinding, sanitize_text
from .errors import FederationCode
from .trust_chain import TrustChain

SHORT_VALIDITY = timedelta(hours=1)
"""An outage of the federation for that long ends sign-ins."""


def check_trust_chain(chain: TrustChain, *, now: datetime) -> Iterator[ProviderFinding]:
    """Report the trust chain of the provider, its expiry, and the trust marks that it states."""
    text = sanitize_text(
        f"{_describe_chain(chain)}, valid until {chain.expires_at:%Y-%m-%d %H:%M} UTC"
    )
    if chain.expires_at - now < SHORT_VALIDITY:
        remedy = (
            "Ask the operator of the federation for statements "
            "that are valid for longer than an outage."
        )
        yield ProviderFinding(
            check="federation", level="warning", code="chain_expires", text=text, remedy=remedy
        )
    else:
        yield ProviderFinding(check="federation", level="ok", text=text)
    if chain.trust_mark_types:
        text = sanitize_text(f"trust marks, not verified: {', '.join(chain.trust_mark_types)}")
        yield ProviderFinding(check="federation", level="ok", text=text)


def check_own_trust_chain(
    chain: TrustChain, *, declaration: ProviderDeclaration
) -> ProviderFinding:
    """Check that the policies of the federation leave the portal what it declares.

    Spec: OpenID Federation 1.0 6.1.4.2: the subject must support its resolved metadata.
    """
    members = chain.metadata
    expected = {
        "token_endpoint_auth_method": (declaration.token_endpoint_auth_method,),
        "subject_type": (declaration.subject_type,),
        "id_token_signed_response_alg": declaration.id_token_signed_response_alg,
        "request_object_signing_alg": (declaration.request_object_signing_alg,),
    }
    changed = []
    for name, values in expected.items():
        if name in members and members[name] not in values:
            changed.append(name)
    text = f"the portal: {_describe_chain(chain)}"
    if changed:
        text = f"the policies of the federation change {', '.join(changed)} of the portal"
        remedy = "Declare what the federation requires."
        code = FederationCode.METADATA_POLICY_ERROR
        return ProviderFinding(
            check="membership", level="failure", code=code, text=text, remedy=remedy
        )
    return ProviderFinding(check="membership", level="ok", text=sanitize_text(text))


def _describe_chain(chain: TrustChain) -> str:
    return " < ".join(chain.entity_identifiers)
