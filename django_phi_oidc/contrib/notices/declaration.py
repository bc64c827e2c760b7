"""The option `ACCOUNT_NOTICES`. No Django."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from ...config.option_grades import LATER
from ...config.option_parsers import parse_dotted_path


def _parse_account_notices(path: str, value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    return str(parse_dotted_path(path, value))


@dataclass(frozen=True, kw_only=True)
class NoticesOptions:
    """The options of mails about accounts."""

    ACCOUNT_NOTICES: Annotated[bool | str, _parse_account_notices] = field(
        default=True, metadata=LATER
    )
    """Users get [a mail](../how-to/account-notices.md) about changes of their account. On: to its
    e-mail address. Or the dotted path of a function from a user to the address, or to an empty text
    for no mail.
    """
