"""A role of an account: a Django group, or one of its two flags. No Django."""

from typing import Literal, NamedTuple, get_args

AccountFlag = Literal["is_staff", "is_superuser"]
ACCOUNT_FLAGS: tuple[AccountFlag, ...] = get_args(AccountFlag)


class Role(NamedTuple):
    """A Django group by its name, or one of the two flags of an account."""

    kind: Literal["group", "flag"]
    name: str
