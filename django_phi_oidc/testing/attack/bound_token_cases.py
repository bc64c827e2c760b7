"""Attack cases for tokens that are bound to a key, and for the profile `fapi2`. Spec: RFC 9449 5;
FAPI 2.0 5.3.3.
"""

from .cases import (
    PRIVATE_KEY_JWT_CLIENT,
    PRIVATE_KEY_JWT_OPTIONS,
    REQUEST_STAGE_FIELDS,
    CaseFields,
    create_case_factory,
)
from .tampering import tamper_member

_DPOP_FIELDS: CaseFields = {
    "options": {"dpop": "require"},
    "provider_state": {"dpop": "offered"},
    "sqlite_only": True,
}
_FAPI2_FIELDS: CaseFields = {
    "options": {
        **PRIVATE_KEY_JWT_OPTIONS,
        "profile": "fapi2",
        "par": "require",
        "dpop": "require",
        "client_assertion_audience": "issuer",
        "metadata_overrides": {},
        "id_token_signed_response_alg": ["PS256", "ES256", "EdDSA"],
    },
    "client_options": PRIVATE_KEY_JWT_CLIENT,
    "provider_state": {"par": "required", "dpop": "required", "signing_alg": "PS256"},
    "sqlite_only": True,
}
_discovery_case = create_case_factory("discovery", **REQUEST_STAGE_FIELDS)
_token_case = create_case_factory("token")

BOUND_TOKEN_CASES = [
    _discovery_case(
        "dpop_unsupported",
        tamper_member("dpop_signing_alg_values_supported"),
        ["RS256"],
        ["RS256", "ES256"],
        **_DPOP_FIELDS,
    ),
    _discovery_case(
        "profile_unsupported",
        tamper_member("authorization_response_iss_parameter_supported"),
        False,
        True,
        "fapi2",
        **_FAPI2_FIELDS,
    ),
    _token_case(
        "token_type_unsupported",
        tamper_member("token_type"),
        "Bearer",
        "dpop",
        "DPoP",
        **_DPOP_FIELDS,
    ),
    _token_case(
        "token_type_unsupported",
        tamper_member("token_type"),
        "Bearer",
        "DPoP",
        "fapi2",
        **_FAPI2_FIELDS,
    ),
]
