"""The error of emergency access, and its code."""

from ...errors import PhiOidcError, RuleCode


class EmergencyCode(RuleCode):
    """The code of emergency access."""

    EMERGENCY_REFUSED = (
        "emergency_refused",
        "",
        "The emergency access is not opened, closed or reviewed.",
    )


class EmergencyRefused(PhiOidcError):
    """The emergency access is not opened, closed or reviewed; `reason` names the rule that
    refused.
    """

    code = EmergencyCode.EMERGENCY_REFUSED

    def __init__(self, reason: str) -> None:
        super().__init__(f"Emergency access is refused: {reason}.")
        self.reason = reason
