"""What is held of a person: declared claims alone, sealed, each with its purpose and its end.

`reveal(actor, user, name, purpose=…)` is the way to a value, and `reveal_many` to those of a list; a `MaskedClaim` is
what a template holds until then. `views.RevealMixin` and `forms.PurposeForm` are a page that asks for a purpose first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .masking import MaskedClaim as MaskedClaim
    from .revealing import Revealed as Revealed
    from .revealing import reveal as reveal
    from .revealing import reveal_many as reveal_many

_HOMES = {"MaskedClaim": "masking", "Revealed": "revealing", "reveal": "revealing", "reveal_many": "revealing"}
__all__ = ["MaskedClaim", "Revealed", "reveal", "reveal_many"]


def __getattr__(name: str) -> Any:
    """Import on first use: the pure files of this feature load without Django."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
