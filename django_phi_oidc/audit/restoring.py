"""Where the log went on after a restore, as the log itself tells: by its events `audit.restored`."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..merkle.checkpoint import Checkpoint
from .reading import read_restored


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The first leaf of an epoch."""

    leaf_index: int
    lost: Checkpoint
    """The largest one that was known outside, and that the restored log did not continue."""


def restorations(archived: Iterable[tuple[int, bytes]] = ()) -> Mapping[int, Restored]:
    """Return what opened each epoch but the first, by the epoch; of two that say so, the first in the log.

    archived: leaf index and canonical bytes of such events that are not in the table any more. Whether they are as they
    were sealed is NOT checked; one that can't be read opens nothing.
    """
    told = [(row.leaf_index, row.canonical or b"") for row in read_restored() if row.leaf_index >= 0]
    found: dict[int, Restored] = {}
    for leaf_index, canonical in sorted([*told, *archived]):
        for epoch, lost in _parsed(canonical):
            found.setdefault(epoch, Restored(leaf_index=leaf_index, lost=lost))
    return found


def _parsed(canonical: bytes) -> Iterator[tuple[int, Checkpoint]]:
    try:
        detail = json.loads(canonical)["detail"]
        root_hash = bytes.fromhex(detail["root_hash"])
        epoch, tree_size, name = detail["epoch"], detail["tree_size"], detail["origin"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return
    if type(epoch) is int and type(tree_size) is int and isinstance(name, str):
        yield epoch, Checkpoint(origin=name, tree_size=tree_size, root_hash=root_hash)
