"""The same with pytest functions, by mark and by fixture."""

import pytest

from hospital.visits import traces, visit


def visit_and_look():
    assert traces() == (0, 0)
    visit()
    assert traces() == (1, 2)


again = pytest.mark.parametrize("visit_number", [1, 2])


@again
@pytest.mark.django_db
def test_visit_by_mark(visit_number):
    visit_and_look()


@again
@pytest.mark.django_db(databases=["default"])
def test_visit_by_mark_that_names_its_databases(visit_number):
    visit_and_look()


@again
@pytest.mark.django_db(True)
def test_visit_by_mark_with_a_transaction(visit_number):
    visit_and_look()


@again
def test_visit_by_fixture(db, visit_number):
    visit_and_look()


@again
def test_visit_by_transactional_fixture(transactional_db, visit_number):
    visit_and_look()


@again
def test_visit_of_a_client(client, django_user_model, admin_user, visit_number):
    assert django_user_model.objects.count() == 1
    visit_and_look()


def test_without_a_database_stays_without():
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        traces()
