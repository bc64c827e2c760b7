"""The source of existing accounts for a first sign-in, if an app has registered one."""

from datetime import datetime

from ..config.providers import ProviderDeclaration
from ..extensions import AccountSource, account_sources


def find_account_source(declaration: ProviderDeclaration, *, now: datetime) -> AccountSource | None:
    """Return the first source that is in force for the provider. By default there is none, and an
    account is found by its subject only.
    """
    for source in account_sources:
        if source.is_in_force(declaration, now=now):
            return source
    return None
