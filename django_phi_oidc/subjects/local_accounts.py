"""The accounts that may sign in with a password while the provider is unavailable."""

from typing import Any

from ..extensions import local_account_sources


def list_local_account_names() -> list[str]:
    """Return the user names of all local accounts."""
    names: list[str] = []
    for source in local_account_sources:
        names += source.list_names()
    return names


def is_local_account(user: Any) -> bool:
    return user.get_username() in list_local_account_names()
