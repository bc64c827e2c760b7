"""The typed registries: the only way from the core to an app.

Each app fills them in `AppConfig.ready()`, in the order of INSTALLED_APPS. The core calls what is
registered in that order, inside the transaction of its own work, so that what runs within a sign-in
can be read here and is printed by `phi_oidc configuration show`. Signals of Django would hide it.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """What apps have registered for one purpose, in order."""

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        """One sentence, for `phi_oidc configuration show`."""
        self._items: list[T] = []

    def register(self, item: T) -> None:
        """Add item, unless it is there: `ready()` runs again when a test changes INSTALLED_APPS."""
        if item not in self._items:
            self._items.append(item)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __bool__(self) -> bool:
        return bool(self._items)
