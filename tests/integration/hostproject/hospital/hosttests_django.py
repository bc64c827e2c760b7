"""Two equal tests of each kind. Without isolation, the second would see the rows of the first."""

import pytest
from django.db import IntegrityError, connections, transaction
from django.test import LiveServerTestCase, SimpleTestCase, TestCase, TransactionTestCase
from django.utils import timezone

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.recorder import record
from hospital.visits import count_rows, visit


class Visits:
    def test_first_visit(self):
        self.assert_rows_are_isolated()

    def test_second_visit(self):
        self.assert_rows_are_isolated()

    def assert_rows_are_isolated(self):
        assert count_rows() == (0, 0)
        visit()
        assert count_rows() == (1, 2)


class VisitsInATestCase(Visits, TestCase):
    def test_update_of_the_audit_log_is_refused(self):
        visit()
        change = "UPDATE phi_oidc_audit_auditevent SET actor = 'another'"
        connection = connections["phi_audit"]
        with pytest.raises(IntegrityError), transaction.atomic(using="phi_audit"), connection.cursor() as cursor:
            cursor.execute(change)


class VisitsInATestCaseWithDatabases(Visits, TestCase):
    databases = frozenset({"default"})


class VisitsInATransactionTestCase(Visits, TransactionTestCase):
    pass


class VisitsInALiveServerTestCase(Visits, LiveServerTestCase):
    pass


class NoDatabase(SimpleTestCase):
    def test_databases_are_not_accessible(self):
        assert self.databases == set()


class AllDatabases(Visits, TestCase):
    databases = "__all__"


class StrictDetail(TestCase):
    def test_disallowed_detail_is_an_error(self):
        detail = {"birthdate": "1970-01-01"}
        with pytest.raises(ValueError, match="birthdate"):
            record(Action.CLAIM_REVEALED, origin=Origin(), now=timezone.now(), detail=detail)
