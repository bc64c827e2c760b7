"""Errors of the registration of a client, and their codes."""

from ...errors import PhiOidcError, RuleCode


class RegistrationCode(RuleCode):
    """The codes of the registration of a client."""

    REGISTRATION_UNSUPPORTED = (
        "registration_unsupported",
        "",
        "The provider has no registration endpoint.",
    )
    REGISTRATION_REFUSED = (
        "registration_refused",
        "",
        "The provider did not register the client (RFC 7591 3.2.2).",
    )


class RegistrationUnsupported(PhiOidcError):
    """The provider has no registration endpoint (Discovery 3)."""

    code = RegistrationCode.REGISTRATION_UNSUPPORTED


class RegistrationRefused(PhiOidcError):
    """The provider did not register the client (RFC 7591 3.2.2)."""

    code = RegistrationCode.REGISTRATION_REFUSED

    def __init__(self, error: str) -> None:
        """error: an error code of the specifications, or `status_` and the status of the
        response.
        """
        super().__init__(f"The provider did not register the client: {error}.")
        self.error = error
