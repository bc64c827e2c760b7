"""The option `scim` of a provider."""

from collections.abc import Mapping

from ...conf import providers
from .declaration import SCIMDeclaration


def scim() -> Mapping[str, SCIMDeclaration]:
    """Return how clients of a provider provision accounts, by its name; empty: SCIM is off."""
    declared = {}
    for name, provider in providers().items():
        option = provider.find_option(SCIMDeclaration)
        if option is not None:
            declared[name] = option
    return declared
