"""Which clauses of the FAPI 2.0 Security Profile the metadata of a provider satisfies."""

from typing import Any

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.doctor.security_profiles import check_fapi2

METADATA: dict[str, Any] = {
    "dpop_signing_alg_values_supported": ["ES256"],
    "token_endpoint_auth_methods_supported": ["private_key_jwt"],
    "require_pushed_authorization_requests": True,
    "code_challenge_methods_supported": ["S256"],
    "authorization_response_iss_parameter_supported": True,
    "id_token_signing_alg_values_supported": ["RS256", "PS256"],
}
BOUND_TO_A_CERTIFICATE = {"dpop_signing_alg_values_supported": [], "tls_client_certificate_bound_access_tokens": True}


def find_missing(members: dict[str, Any], *, profile: Any = "fapi2") -> list[str]:
    """Return the beginnings of the clauses that are missing, with their level if it is ok."""
    declaration = ProviderDeclaration(
        name="default", issuer="https://op.example", client_id="portal", client_secret="s", profile=profile
    )
    findings = list(check_fapi2(members, declaration=declaration))
    return [
        "ok" if finding.level == "ok" else finding.text.partition("Profile ")[2].partition(",")[0]
        for finding in findings
    ]


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"dpop_signing_alg_values_supported": ["RS256"]}, "5.3.2.1"),
        ({"token_endpoint_auth_methods_supported": ["client_secret_basic"]}, "5.3.2.1"),
        ({"require_pushed_authorization_requests": False}, "5.3.2.2"),
        ({"code_challenge_methods_supported": ["plain"]}, "5.3.2.2"),
        ({"authorization_response_iss_parameter_supported": False}, "5.3.2.2"),
        ({"id_token_signing_alg_values_supported": ["RS256"]}, "5.4.1"),
        ({"id_token_signing_alg_values_supported": "PS256"}, "5.4.1"),
    ],
)
def test_each_missing_clause_is_named(changes: dict[str, Any], clause: str) -> None:
    assert find_missing(METADATA) == ["ok"]
    assert find_missing({**METADATA, **changes}) == [clause]
    assert find_missing({}) == ["5.3.2.1", "5.3.2.1", "5.3.2.2", "5.3.2.2", "5.3.2.2", "5.4.1"]


def test_tokens_may_be_bound_to_a_certificate() -> None:
    assert find_missing({**METADATA, **BOUND_TO_A_CERTIFICATE}) == ["ok"]


def test_other_profiles_are_not_checked() -> None:
    assert find_missing({}, profile="baseline") == []
