"""The option `BREAK_GLASS_ACCOUNTS`. No Django."""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from ...config.option_grades import LATER
from ...config.option_parsers import checked, parse_strings

_parse_user_names = checked(
    partial(parse_strings, items="user names"),
    lambda names: len(set(names)) == len(names),
    "has a name twice",
)


@dataclass(frozen=True, kw_only=True)
class LocalAccountsOptions:
    """The options of the local accounts."""

    BREAK_GLASS_ACCOUNTS: Annotated[tuple[str, ...], _parse_user_names] = field(
        default=(), metadata=LATER
    )
    """User names of [local accounts](../how-to/local-accounts.md), which may sign in with a
    password while the provider is unavailable.
    """
