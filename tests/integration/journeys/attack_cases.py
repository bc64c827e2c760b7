"""The attack kit's cases, as the project of the tests has them: it loosens nothing."""

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
from django_phi_oidc.testing.attack.tampering import OMITTED, tamper_member

__all__ = [
    "BENT",
    "CLIENT",
    "OMITTED",
    "PRIVATE_KEY_JWT_CLIENT",
    "PRIVATE_KEY_JWT_OPTIONS",
    "R6",
    "R7",
    "TRANSPORT_CASES",
    "TamperingCase",
    "tamper_member",
]

CLIENT = "portal"
R6, R7 = list_id_token_cases(), list_userinfo_cases()
BENT = [*TRANSPORT_CASES, *METADATA_CASES, *PAR_CASES, *list_token_response_cases(), *R6, *R7, *SIGNED_USERINFO_CASES]
