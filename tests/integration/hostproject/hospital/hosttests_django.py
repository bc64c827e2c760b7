"""Two equal tests of each kind: were they not isolated, the second would see the traces of the first."""

import pytest
from django.db import IntegrityError, connections, transaction
from django.test import LiveServerTestCase, SimpleTestCase, TestCase, TransactionTestCase
from django.utils import timezone

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.recorder import record
from hospital.visits import traces, visit


class Visits:
    def test_first_visit(self):
        self.visit_and_look()

    def test_second_visit(self):
        self.visit_and_look()

    def visit_and_look(self):
        assert traces() == (0, 0)
        visit()
        assert traces() == (1, 2)


class VisitsInATestCase(Visits, TestCase):
    def test_update_of_the_trail_is_refused(self):
        visit()
        change = "UPDATE django_phi_oidc_auditevent SET actor = 'somebody else'"
        trail = connections["phi_audit"]
        with pytest.raises(IntegrityError), transaction.atomic(using="phi_audit"), trail.cursor() as cursor:
            cursor.execute(change)


class VisitsInATestCaseThatNamesItsDatabases(Visits, TestCase):
    databases = frozenset({"default"})


class VisitsInATransactionTestCase(Visits, TransactionTestCase):
    pass


class VisitsOfALiveServer(Visits, LiveServerTestCase):
    pass


class NoDatabase(SimpleTestCase):
    def test_databases_stay_out_of_reach(self):
        assert self.databases == set()


class AllDatabases(Visits, TestCase):
    databases = "__all__"


class StrictDetail(TestCase):
    def test_detail_that_is_not_allowed_is_an_error(self):
        detail = {"birthdate": "1970-01-01"}
        with pytest.raises(ValueError, match="birthdate"):
            record(Action.CLAIM_REVEALED, origin=Origin(), now=timezone.now(), detail=detail)
