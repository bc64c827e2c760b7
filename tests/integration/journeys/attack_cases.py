"""The attack kit's cases for the test project, which weakens no check."""

from django_phi_oidc.testing.attack.bound_token_cases import BOUND_TOKEN_CASES
from django_phi_oidc.testing.attack.cases import (
    METADATA_CASES,
    PAR_CASES,
    PRIVATE_KEY_JWT_CLIENT,
    PRIVATE_KEY_JWT_OPTIONS,
    SIGNED_USERINFO_CASES,
    TRANSPORT_CASES,
    TamperingCase,
    list_id_token_cases,
    list_token_response_cases,
    list_userinfo_cases,
)
from django_phi_oidc.testing.attack.encrypted_token_cases import ENCRYPTED_TOKEN_CASES
from django_phi_oidc.testing.attack.federation_cases import FEDERATION_CASES, build_federation_options
from django_phi_oidc.testing.attack.tampering import OMITTED, tamper_member

__all__ = [
    "CLIENT",
    "ID_TOKEN_CASES",
    "OMITTED",
    "PRIVATE_KEY_JWT_CLIENT",
    "PRIVATE_KEY_JWT_OPTIONS",
    "TAMPERING_CASES",
    "TRANSPORT_CASES",
    "USERINFO_CASES",
    "TamperingCase",
    "build_federation_options",
    "tamper_member",
]

CLIENT = "portal"
ID_TOKEN_CASES, USERINFO_CASES = list_id_token_cases(), list_userinfo_cases()
TAMPERING_CASES = [
    *BOUND_TOKEN_CASES,
    *ENCRYPTED_TOKEN_CASES,
    *TRANSPORT_CASES,
    *METADATA_CASES,
    *FEDERATION_CASES,
    *PAR_CASES,
    *list_token_response_cases(),
    *ID_TOKEN_CASES,
    *USERINFO_CASES,
    *SIGNED_USERINFO_CASES,
]
