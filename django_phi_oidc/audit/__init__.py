"""The audit trail: who did what, for which purpose, with what outcome. See `Action` for all that it can hold."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .events import Act as Act
    from .events import Action as Action
    from .events import Origin as Origin
    from .events import register_actions as register_actions
    from .recording import record as record
    from .recording import record_many as record_many
    from .request import Actor as Actor

_DOORS = {
    **dict.fromkeys(("Act", "Action", "Origin", "register_actions"), "events"),
    **dict.fromkeys(("record", "record_many"), "recording"),
    "Actor": "request",
}
__all__ = ["Act", "Action", "Actor", "Origin", "record", "record_many", "register_actions"]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_DOORS[name]}"), name)
