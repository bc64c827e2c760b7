"""Replace a global of a module for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def override_global(namespace: dict[str, Any], name: str, value: Any) -> Iterator[None]:
    """Set namespace[name] to value in this process, in all threads, until the block ends.
    namespace: `globals()`.
    """
    before = namespace[name]
    namespace[name] = value
    try:
        yield
    finally:
        namespace[name] = before
