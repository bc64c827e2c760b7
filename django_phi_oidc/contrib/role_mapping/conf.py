"""The option `ROLES`."""

from collections.abc import Callable, Mapping
from functools import partial

from ...options import read_option
from .declaration import RoleRule

roles: Callable[[], Mapping[str, tuple[RoleRule, ...]]] = partial(read_option, "ROLES")
"""Return the rules from claims to roles, by the name of the provider."""
