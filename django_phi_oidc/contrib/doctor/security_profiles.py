"""What a provider lacks for the declared security profile, by its metadata. No Django."""

from collections.abc import Iterator, Mapping
from typing import Any

from ...config.providers import FAPI2_ALGS, MTLS_METHODS, ProviderDeclaration
from ...errors import Code
from ...oidc.remedies import find_remedy
from ..common.provider_findings import ProviderFinding

_FAPI2_METHODS = frozenset({"private_key_jwt", *MTLS_METHODS})


def check_fapi2(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> Iterator[ProviderFinding]:
    """Report the clauses of the FAPI 2.0 Security Profile that the metadata does not satisfy, if it
    is declared.

    NOT checked: what the metadata does not contain, such as the lifetime of codes. Spec: FAPI 2.0
    Security Profile 5.3.2.1, 5.3.2.2, 5.4.1.
    """
    if declaration.profile != "fapi2":
        return
    missing = []
    for clause, holds in _list_fapi2_clauses(members):
        if not holds:
            missing.append(clause)
    for clause in missing:
        text = (
            "the metadata does not say that the provider "
            f"satisfies FAPI 2.0 Security Profile {clause}"
        )
        remedy = find_remedy(Code.PROFILE_UNSUPPORTED)
        yield ProviderFinding(
            check="fapi2", level="warning", code=Code.PROFILE_UNSUPPORTED, text=text, remedy=remedy
        )
    if not missing:
        yield ProviderFinding(
            check="fapi2", level="ok", text="the metadata satisfies the FAPI 2.0 Security Profile"
        )


def _list_fapi2_clauses(members: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    is_certificate_bound = members.get("tls_client_certificate_bound_access_tokens") is True
    is_key_bound = bool(_get_values(members, "dpop_signing_alg_values_supported") & FAPI2_ALGS)
    yield "5.3.2.1, sender-constrained access tokens", is_certificate_bound or is_key_bound
    methods = _get_values(members, "token_endpoint_auth_methods_supported")
    yield "5.3.2.1, private_key_jwt or mutual TLS", bool(methods & _FAPI2_METHODS)
    yield (
        "5.3.2.2, only pushed requests",
        members.get("require_pushed_authorization_requests") is True,
    )
    yield (
        "5.3.2.2, PKCE with S256",
        "S256" in _get_values(members, "code_challenge_methods_supported"),
    )
    yield (
        "5.3.2.2, iss in responses",
        members.get("authorization_response_iss_parameter_supported") is True,
    )
    algs = _get_values(members, "id_token_signing_alg_values_supported")
    yield "5.4.1, PS256, ES256 or EdDSA", bool(algs & FAPI2_ALGS)


def _get_values(members: Mapping[str, Any], name: str) -> frozenset[str]:
    values = members.get(name)
    if isinstance(values, list):
        result = set()
        for value in values:
            if isinstance(value, str):
                result.add(value)
        return frozenset(result)
    return frozenset()
