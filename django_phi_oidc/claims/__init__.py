"""What is held of a person: declared claims alone, sealed, each with its purpose and its end.

`reveal(actor, user, name, purpose=…)` is the one way to a value.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .revealing import reveal as reveal

__all__ = ["reveal"]


def __getattr__(name: str) -> Any:
    """Import on first use: the pure files of this feature load without Django."""
    if name == "reveal":
        return import_module(f"{__name__}.revealing").reveal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
