"""Batches of any iterable. From Python 3.12 on, itertools.batched does the same."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def split_into_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of size items, the last one shorter. Each is read from items when it is
    requested.
    """
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
