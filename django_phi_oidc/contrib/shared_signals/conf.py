"""The option `signals` of a provider."""

from collections.abc import Mapping

from ...conf import providers
from .declaration import SignalsDeclaration


def signals() -> Mapping[str, SignalsDeclaration]:
    """Return how providers send security events, by the name of the provider."""
    declared = {}
    for name, provider in providers().items():
        option = provider.find_option(SignalsDeclaration)
        if option is not None:
            declared[name] = option
    return declared
