"""Errors of activation codes, and their codes."""

from ...errors import PhiOidcError, RuleCode


class InvitationCode(RuleCode):
    """The rule codes of activation codes."""

    INVITATION_REFUSED = (
        "invitation_refused",
        "",
        "No activation code can be created for this account.",
    )
    ACTIVATION_REFUSED = (
        "activation_refused",
        "",
        "The activation code is not valid, or not for this subject.",
    )


class InvitationRefused(PhiOidcError):
    """No activation code can be created; the message gives the reason, for administrators only."""

    code = InvitationCode.INVITATION_REFUSED


class ActivationRefused(PhiOidcError):
    """The activation code is not valid, or not for this subject; `reason` is for the audit log
    only.
    """

    code = InvitationCode.ACTIVATION_REFUSED

    def __init__(self, reason: str, *, user: object = "") -> None:
        """user: the primary key of the user that the code was created for; empty if the code is
        unknown.
        """
        super().__init__()
        self.reason = reason
        self.user = user
