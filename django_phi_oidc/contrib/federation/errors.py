"""The codes of OpenID Federation."""

from ...errors import RuleCode


class FederationCode(RuleCode):
    """The codes of OpenID Federation."""

    ENTITY_STATEMENT_INVALID = (
        "entity_statement_invalid",
        "R2",
        "An entity statement is invalid or expired.",
        True,
    )
    TRUST_CHAIN_INVALID = (
        "trust_chain_invalid",
        "R2",
        "No valid trust chain leads to the trust anchor.",
        True,
    )
    METADATA_POLICY_ERROR = (
        "metadata_policy_error",
        "R2",
        "The metadata violate the policies of the federation.",
        True,
    )
