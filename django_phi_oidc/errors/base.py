"""What every error of the app has."""


class PhiOidcError(Exception):
    """Base of every error that this app raises on purpose."""

    code = "error"
    provider_fault = False

    def __init_subclass__(cls, *, code: str = "", provider_fault: bool | None = None) -> None:
        super().__init_subclass__()
        if code:
            cls.code = code
        if provider_fault is not None:
            cls.provider_fault = provider_fault

    def __init__(self, message: str = "", **details: object) -> None:
        """message: in English, with a `%(name)s` for each of details, so that a page can translate it first."""
        self.message, self.details = message or (self.__doc__ or "").partition("\n")[0], details
        super().__init__(self.message % details if details else self.message)
