"""Sessions at the OP, their only way out, and the revocation of what they held.

`access_token(session)` gives a live token for calls to a protected API.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tokens import access_token as access_token

__all__ = ["access_token"]


def __getattr__(name: str) -> Any:
    """Import on first use: the pure files of this feature load without Django."""
    if name == "access_token":
        return import_module(f"{__name__}.tokens").access_token
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
