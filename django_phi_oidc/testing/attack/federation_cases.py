"""Attack cases of OpenID Federation: statements of the provider's superiors. They need
`build_federation_options`.
"""

from typing import Any

from ..mock_provider import DemoProvider
from .cases import (
    PAR_FIELDS,
    PRIVATE_KEY_JWT_CLIENT,
    PRIVATE_KEY_JWT_OPTIONS,
    CaseFields,
    create_case_factory,
)
from .tampering import sign_with_foreign_key, tamper_member, tamper_reply, tamper_time_claim
from .throwaway_ca import create_private_key_pem

FEDERATION_KEY_PEM = create_private_key_pem("EC")
ENTITY_IDENTIFIER = "https://portal.example"


def build_federation_options(op: DemoProvider) -> dict[str, Any]:
    """Return the options of a declaration of op as a member of its federation."""
    federation = {
        "trust_anchor": op.trust_anchor,
        "trust_anchor_keys": op.trust_anchor_keys,
        "authority_hints": [op.trust_anchor],
        "keys": FEDERATION_KEY_PEM,
    }
    overridden = {"client_id": ENTITY_IDENTIFIER, "par": "require", "metadata_overrides": {}}
    return {**PRIVATE_KEY_JWT_OPTIONS, **overridden, "federation": federation}


FEDERATION_FIELDS: CaseFields = {
    "is_federated": True,
    "client_options": {**PRIVATE_KEY_JWT_CLIENT, "client_id": ENTITY_IDENTIFIER},
    **PAR_FIELDS,
}

_statement_case = create_case_factory("subordinate_statement", **FEDERATION_FIELDS)
FEDERATION_CASES = [
    _statement_case("entity_statement_invalid", tamper_time_claim("exp"), -31, 60),
    _statement_case("entity_statement_invalid", sign_with_foreign_key, True, False, "foreign key"),
    create_case_factory("anchor_configuration", **FEDERATION_FIELDS)(
        "entity_statement_invalid", sign_with_foreign_key, True, False, "foreign trust anchor"
    ),
    create_case_factory("federation_fetch", **FEDERATION_FIELDS)(
        "trust_chain_invalid", tamper_reply, {"status": 404}, {"status": 200}, "not a member"
    ),
    _statement_case(
        "trust_chain_invalid",
        tamper_member("constraints"),
        {"naming_constraints": {"excluded": ["127.0.0.1"]}},
        {"naming_constraints": {"excluded": ["op.example"]}},
    ),
    _statement_case(
        "metadata_policy_error",
        tamper_member("metadata_policy"),
        {
            "openid_provider": {
                "subject_types_supported": {"superset_of": ["pairwise", "ephemeral"]}
            }
        },
        {"openid_provider": {"subject_types_supported": {"superset_of": ["pairwise"]}}},
    ),
]
