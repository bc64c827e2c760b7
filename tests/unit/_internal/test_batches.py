"""Batches of any iterable."""

import pytest

from django_phi_oidc._internal.batches import split_into_batches


@pytest.mark.parametrize(
    ("count", "batches"), [(0, []), (1, [[0]]), (2, [[0, 1]]), (3, [[0, 1], [2]]), (4, [[0, 1], [2, 3]])]
)
def test_each_item_is_in_one_batch(count: int, batches: list[list[int]]) -> None:
    assert list(split_into_batches(range(count), 2)) == batches


def test_batch_is_read_when_it_is_requested() -> None:
    items = iter(range(5))
    batches = split_into_batches(items, 2)
    assert next(batches) == [0, 1]
    assert next(items) == 2
    assert next(batches) == [3, 4]
