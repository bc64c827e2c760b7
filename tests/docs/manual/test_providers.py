"""What the page declares of providers goes with the metadata that they publish, and nothing of it is there in vain."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.doctor.diagnostics import check_logout
from django_phi_oidc.errors import Code, SignInRefused
from django_phi_oidc.oidc.metadata import process_metadata_response
from django_phi_oidc.oidc.transport import TransportResponse
from tests.support.client_keys import create_private_key_pem
from tests.support.error_codes import raises

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "real-providers.md").read_text()


def published(issuer: str, *subject_types: str, revocation: bool = True, algs: tuple[str, ...] = ("RS256",)) -> Any:
    """Return of a provider's metadata what is judged; at which paths its endpoints are is no matter."""
    base = issuer.rstrip("/")
    return {
        "issuer": issuer,
        **{
            name: f"{base}/{name}"
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint")
        },
        **({"revocation_endpoint": f"{base}/revoke"} if revocation else {}),
        "subject_types_supported": list(subject_types),
        "id_token_signing_alg_values_supported": list(algs),
    }


MANY = ("PS384", "ES384", "HS256", "ES256", "RS256", "PS256")
PUBLISHED = {
    "keycloak": published("https://id.example.org/realms/patients", "public", "pairwise", algs=MANY),
    "entra": published(
        "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0", "pairwise", revocation=False
    ),
    "okta": published("https://example.okta.com", "public"),
    "auth0": published("https://example.eu.auth0.com/", "public", algs=("HS256", "RS256")),
    "cognito": published("https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE", "public"),
    "pingfederate": published("https://sso.example.org", "public", "pairwise", algs=("none", *MANY)),
    "login_gov": published("https://idp.int.identitysandbox.gov/", "pairwise", revocation=False),
}
NEEDED: list[tuple[str, dict[str, Any], type[SignInRefused]]] = [
    ("entra", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("entra", {"issuer": "https://login.microsoftonline.com/common/v2.0"}, Code.ISSUER_MISMATCH),
    ("okta", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("auth0", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("auth0", {"issuer": "https://example.eu.auth0.com"}, Code.ISSUER_MISMATCH),
    ("cognito", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("login_gov", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("login_gov", {"issuer": "https://idp.int.identitysandbox.gov"}, Code.ISSUER_MISMATCH),
]


@pytest.fixture
def declared(tmp_path: Path) -> dict[str, Any]:
    """Return what the page declares, with a key file of this test."""
    found = re.search(r"<!-- tested: declared -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found
    key = tmp_path / "client-key.pem"
    key.write_text(create_private_key_pem("RSA"))
    key.chmod(0o600)
    names: dict[str, Any] = {"Path": Path}
    exec(found[1].replace("/etc/portal/client-key.pem", str(key)), names)
    return names["PROVIDERS"]  # type: ignore[no-any-return]


def judge(name: str, raw: dict[str, Any]) -> None:
    response = TransportResponse(
        status=200, headers={"content-type": "application/json"}, body=json.dumps(PUBLISHED[name]).encode()
    )
    process_metadata_response(response, declaration=parse_provider(name, raw))


def test_each_declaration_goes_with_what_its_provider_publishes(declared: dict[str, Any]) -> None:
    assert declared.keys() == PUBLISHED.keys()
    for name, raw in declared.items():
        judge(name, raw)


LOGOUT: list[tuple[str, dict[str, Any], str]] = [
    ("okta", {"id_token_hint": "minimal"}, "id_token_hint_required"),
    ("cognito", {"end_session_parameters": {}}, "end_session_parameter_missing"),
]


@pytest.mark.parametrize(("name", "otherwise", "code"), LOGOUT)
def test_b4_what_is_declared_for_the_logout_is_needed(
    declared: dict[str, Any], name: str, otherwise: dict[str, Any], code: str
) -> None:
    members = {**PUBLISHED[name], "end_session_endpoint": f"{PUBLISHED[name]['issuer']}/logout"}
    found = [
        next(check_logout(members, declaration=parse_provider(name, raw)))
        for raw in (declared[name], declared[name] | otherwise)
    ]
    assert [(finding.level, finding.code) for finding in found] == [("ok", ""), ("warning", code)]


@pytest.mark.parametrize(("name", "otherwise", "error"), NEEDED)
def test_what_is_declared_is_needed(
    declared: dict[str, Any], name: str, otherwise: dict[str, Any], error: type[SignInRefused]
) -> None:
    judge(name, declared[name])
    with raises(error):
        judge(name, declared[name] | otherwise)
