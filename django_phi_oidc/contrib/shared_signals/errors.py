"""Errors of security events and streams, and their codes."""

from ...errors import RuleCode, TokenRefused


class SignalCode(RuleCode):
    """The codes of security events and streams."""

    SET_INVALID = (
        "set_invalid",
        "",
        "The security event token is not valid (RFC 8417 2; SSF 1.0 4.1).",
    )
    STREAM_REFUSED = "stream_refused", "", "The transmitter does not answer as SSF 1.0 8 requires."


class SecurityEventTokenInvalid(TokenRefused):
    """The security event token is not valid for this provider, receiver and time (RFC 8417 2; SSF
    1.0 4.1).
    """

    code = SignalCode.SET_INVALID
