"""A key callable that the test controls from another process, through a file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class SealedError(Exception):
    """Not an error of this package, as that of a client of a key service."""


class KeyService:
    """What a process reads: the keys in the file; it fails while the file says so."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read_ring(self, ring: str) -> Callable[[], list[str]]:
        """Return the callable for KEYS of that ring."""
        path, calls = self._folder / f"{ring}.json", dict[str, int]()

        def get_keys() -> list[str]:
            text = path.read_text()
            answer: dict[str, Any] = json.loads(text)
            calls[text] = calls.get(text, 0) + 1
            if answer["keys"] is None or (answer["calls"] and calls[text] > answer["calls"]):
                raise SealedError("the key service is sealed")
            return list(answer["keys"])

        return get_keys

    def set_keys(self, ring: str, keys: Sequence[str] | None, *, calls: int = 0) -> None:
        """Return these keys from now on. None: fail. calls: fail after so many calls of a process; 0: never."""
        new = self._folder / f"{ring}.new"
        new.write_text(json.dumps({"keys": keys, "calls": calls}))
        new.replace(self._folder / f"{ring}.json")
