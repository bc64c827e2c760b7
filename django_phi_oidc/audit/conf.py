"""The options of the audit log."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..options import read_option
from .declaration import Network, WitnessDeclaration

origin: Callable[[], Any] = partial(read_option, "AUDIT", "origin")
"""Return the declared name of the log; `audit.log.signing_keys` validates it."""
witness_file: Callable[[], str | Path | None] = partial(read_option, "AUDIT", "witness_file")
resource_ids: Callable[[], Literal["plain", "keyed"]] = partial(
    read_option, "AUDIT", "resource_ids"
)
witnesses: Callable[[], Mapping[str, WitnessDeclaration]] = partial(
    read_option, "AUDIT", "witnesses"
)
tiles: Callable[[], Path | str | None] = partial(read_option, "AUDIT", "tiles")
archive_folder: Callable[[], Path | None] = partial(read_option, "AUDIT", "archives")
trusted_proxies: Callable[[], tuple[Network, ...]] = partial(read_option, "TRUSTED_PROXIES")


def witness_quorum() -> int:
    """Return how many witnesses must have cosigned a checkpoint; 0 without witnesses."""
    declared: int | None = read_option("AUDIT", "quorum")
    count = len(witnesses())

    if declared is not None:
        return declared
    if count:
        return count // 2 + 1
    return 0
