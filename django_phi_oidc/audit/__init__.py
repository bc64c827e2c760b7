"""The audit trail: who did what, for which purpose, with what outcome. See `Action` for all that it can hold."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .events import Action as Action
    from .events import Origin as Origin
    from .request import Actor as Actor

_DOORS = {"Action": "events", "Origin": "events", "Actor": "request"}
__all__ = ["Action", "Actor", "Origin"]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_DOORS[name]}"), name)
