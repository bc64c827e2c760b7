"""Errors of access tokens at an API of the portal, and their codes."""

from ...errors import PhiOidcError, RuleCode, TokenRefused


class APICode(RuleCode):
    """The codes of access tokens at an API of the portal."""

    ACCESS_TOKEN_INVALID = (
        "access_token_invalid",
        "",
        "The access token is not valid at this API now.",
    )
    INTROSPECTION_FAILED = (
        "introspection_failed",
        "",
        "The provider does not answer introspection (RFC 7662 2.2, 2.3).",
    )


class AccessTokenInvalid(TokenRefused):
    """The access token is not valid at this API now (RFC 9068 4; RFC 7662 2.2), or its subject has
    no account.
    """

    code = APICode.ACCESS_TOKEN_INVALID


class ClientTokenInvalid(AccessTokenInvalid):
    """An access token that a client requested for itself is not valid at this endpoint. provider:
    that of the token; empty if it is not known.
    """

    def __init__(self, rule: str, *, provider: str) -> None:
        super().__init__(rule)
        self.provider = provider


class DPoPProofInvalid(AccessTokenInvalid):
    """The DPoP proof of a request does not fit it (RFC 9449 4.3); `rule` names the check that
    failed.
    """


class IntrospectionFailed(PhiOidcError):
    """The provider does not answer introspection (RFC 7662 2.2, 2.3)."""

    code = APICode.INTROSPECTION_FAILED
