"""The option `API`."""

from collections.abc import Callable, Mapping
from functools import partial

from ...options import read_option
from .declaration import APIDeclaration

apis: Callable[[], Mapping[str, APIDeclaration]] = partial(read_option, "API")
"""Return which access tokens the portal's own APIs accept, by the name of the provider."""
