"""Apart from the others, as serialized_django.py is."""

import pytest

from hospital.visits import traces, visit


@pytest.mark.parametrize("visit_number", [1, 2])
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_visit_by_mark_with_serialized_rollback(visit_number):
    assert traces() == (0, 0)
    visit()
    assert traces() == (1, 2)
