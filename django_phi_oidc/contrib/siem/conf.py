"""The options of the delivery of the audit log."""

from collections.abc import Callable, Mapping
from functools import partial

from ...options import read_option
from .declaration import SinkDeclaration

sinks: Callable[[], Mapping[str, SinkDeclaration]] = partial(read_option, "SIEM")
"""Return the declared sinks by name."""


def has_sinks() -> bool:
    """Return whether any sink is declared."""
    return bool(sinks())
