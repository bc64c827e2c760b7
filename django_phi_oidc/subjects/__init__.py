"""Who a person is here: known by (issuer, `sub`) alone, never by e-mail or name.

`pairwise_id(user, sector)` is who they are to another system: an identifier of its own for each.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .identifying import pairwise_id as pairwise_id

__all__ = ["pairwise_id"]


def __getattr__(name: str) -> Any:
    """Import on first use: the pure files of this feature load without Django."""
    if name == "pairwise_id":
        return import_module(f"{__name__}.identifying").pairwise_id
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
