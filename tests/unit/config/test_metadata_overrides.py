"""The option `metadata_overrides`: valid and invalid members."""

from typing import Any

import pytest

from django_phi_oidc.config.metadata_overrides import parse_metadata_overrides
from django_phi_oidc.errors import DeclarationInvalid
from django_phi_oidc.oidc.metadata import OPTIONAL_ENDPOINTS, REQUIRED_ENDPOINTS

PATH = "PROVIDERS['default']['metadata_overrides']"
URL = "https://op.example.test/revoke"
PAIRS: dict[str, tuple[Any, Any]] = {
    # refused, accepted
    "the issuer": ({"issuer": "https://op.example.test"}, {"jwks_uri": "https://op.example.test/keys"}),
    "an unknown member": ({"revocation_endpoints": URL}, {"revocation_endpoint": URL}),
    "no URL": ({"revocation_endpoint": "revoke"}, {"revocation_endpoint": URL}),
    "an endpoint with a fragment": ({"token_endpoint": f"{URL}#a"}, {"token_endpoint": f"{URL}?a=b"}),
    "s6 http": ({"token_endpoint": "http://op.example.test/token"}, {"token_endpoint": "http://127.0.0.1:9000/token"}),
    "s6 http for the keys": ({"jwks_uri": "http://192.0.2.1/keys"}, {"jwks_uri": "http://[::1]/keys"}),
    "s6 http in capital letters": ({"jwks_uri": "HTTP://op.example.test/keys"}, {"jwks_uri": "http://localhost/keys"}),
    "s6 a scheme that only begins with https": (
        {"token_endpoint": "https-x://op.example.test/token"},
        {"token_endpoint": "HTTPS://op.example.test/token"},
    ),
    "an endpoint that is no string": ({"token_endpoint": 5}, {"token_endpoint": URL}),
    "an endpoint that is None": ({"token_endpoint": None}, {}),
    "a truthy switch": ({"require_pushed_authorization_requests": 1}, {"require_pushed_authorization_requests": False}),
    "responses without iss": (
        {"authorization_response_iss_parameter_supported": False},
        {"authorization_response_iss_parameter_supported": True},
    ),
    "a string for a list": ({"subject_types_supported": "pairwise"}, {"subject_types_supported": ["pairwise"]}),
    "no dictionary": ([("revocation_endpoint", URL)], {"revocation_endpoint": URL}),
}


@pytest.mark.parametrize(("refused", "accepted"), PAIRS.values(), ids=PAIRS)
def test_c3_override_is_refused_or_accepted(refused: Any, accepted: dict[str, Any]) -> None:
    hash(parse_metadata_overrides(PATH, accepted))
    with pytest.raises(DeclarationInvalid, match="metadata_overrides"):
        parse_metadata_overrides(PATH, refused)


def test_c3_each_endpoint_can_be_overridden() -> None:
    names = (*REQUIRED_ENDPOINTS, *OPTIONAL_ENDPOINTS)
    assert parse_metadata_overrides(PATH, dict.fromkeys(names, URL)) == tuple((name, URL) for name in names)


def test_c3_lists_are_hashable_values() -> None:
    parsed = parse_metadata_overrides(PATH, {"id_token_signing_alg_values_supported": ["ES256"]})
    assert parsed == (("id_token_signing_alg_values_supported", ("ES256",)),)
