"""The same tests as pytest functions, with marks and fixtures."""

import pytest

from hospital.visits import count_rows, visit


def assert_rows_are_isolated(event_count=0):
    assert count_rows() == (0, event_count)
    visit()
    assert count_rows() == (1, event_count + 2)


twice = pytest.mark.parametrize("visit_number", [1, 2])


@twice
@pytest.mark.django_db
def test_visit_by_mark(visit_number):
    assert_rows_are_isolated()


@twice
@pytest.mark.django_db(databases=["default"])
def test_visit_by_mark_with_databases(visit_number):
    assert_rows_are_isolated()


@twice
@pytest.mark.django_db(True)
def test_visit_by_mark_with_a_transaction(visit_number):
    assert_rows_are_isolated()


@twice
def test_visit_by_fixture(db, visit_number):
    assert_rows_are_isolated()


@twice
def test_visit_by_transactional_fixture(transactional_db, visit_number):
    assert_rows_are_isolated()


@twice
def test_visit_of_a_client(client, django_user_model, admin_user, visit_number):
    assert django_user_model.objects.count() == 1
    # That a superuser was created is an event.
    assert_rows_are_isolated(event_count=1)


def test_without_mark_the_database_is_not_accessible():
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        count_rows()
