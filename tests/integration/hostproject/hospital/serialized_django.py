"""In a separate module, because Django cannot restore content types that a flush has recreated."""

from django.test import TransactionTestCase

from hospital.hosttests_django import Visits


class VisitsWithSerializedRollback(Visits, TransactionTestCase):
    serialized_rollback = True
    databases = frozenset({"default"})
