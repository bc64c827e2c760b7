"""Apart from the others: Django can't restore its content types after a flush that made them anew."""

from django.test import TransactionTestCase

from hospital.hosttests_django import Visits


class VisitsWithSerializedRollback(Visits, TransactionTestCase):
    serialized_rollback = True
    databases = frozenset({"default"})
