"""The option `ACCOUNT_NOTICES`."""

from collections.abc import Callable
from typing import Any

from ...options import cache_option, import_function, read_option


@cache_option
def account_notices() -> Callable[[Any], Any] | None:
    """Return the function from a user to the address for notices about the account; None: there are
    no notices.
    """
    declared = read_option("ACCOUNT_NOTICES")
    if isinstance(declared, str):
        return import_function("ACCOUNT_NOTICES", declared)

    if declared:
        return get_email_address
    return None


def get_email_address(user: Any) -> Any:
    """Return the address of the account, for notices: the default of ACCOUNT_NOTICES."""
    # A custom user model may have no such field.
    return getattr(user, user.get_email_field_name(), "")
