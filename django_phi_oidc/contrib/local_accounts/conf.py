"""The option `BREAK_GLASS_ACCOUNTS`."""

from collections.abc import Callable
from functools import partial

from ...options import read_option

break_glass_accounts: Callable[[], tuple[str, ...]] = partial(read_option, "BREAK_GLASS_ACCOUNTS")
"""Return the user names of the local accounts."""
