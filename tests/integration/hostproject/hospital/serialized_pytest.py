"""In a separate module, as serialized_django.py."""

import pytest

from hospital.visits import count_rows, visit


@pytest.mark.parametrize("visit_number", [1, 2])
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_visit_by_mark_with_serialized_rollback(visit_number):
    assert count_rows() == (0, 0)
    visit()
    assert count_rows() == (1, 2)
