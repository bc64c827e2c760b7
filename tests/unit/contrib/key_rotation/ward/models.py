"""Rows with sealed texts, by primary keys of every kind."""

import uuid
from typing import Any

from django.db import models

from django_phi_oidc.fields import SealedTextField


class WithoutArchived(models.Manager[Any]):
    """Leaves rows out, as managers do."""

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(archived=False)


class Chart(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    archived = models.BooleanField(default=False)
    text = SealedTextField(bind=("id",), null=True)
    remark = SealedTextField(bind=("id",), null=True)

    objects = WithoutArchived()

    class Meta:
        base_manager_name = "objects"

    def __str__(self) -> str:
        return str(self.id)


class ChartForDoctors(Chart):
    class Meta:
        proxy = True

    def __str__(self) -> str:
        return str(self.id)


class ChartAsAnotherAppHasIt(models.Model):
    id = models.UUIDField(primary_key=True)
    text = SealedTextField(bind=("id",), null=True)

    class Meta:
        managed = False
        db_table = "ward_chart"

    def __str__(self) -> str:
        return str(self.id)


class Bed(models.Model):
    code = models.CharField(max_length=40, primary_key=True)
    note = SealedTextField(bind=("code",), db_column="The Note")

    def __str__(self) -> str:
        return self.code


class Visit(models.Model):
    pk = models.CompositePrimaryKey("day", "bed_code")
    day = models.DateField()
    bed_code = models.CharField(max_length=40)
    note = SealedTextField(bind=("day", "bed_code"))

    def __str__(self) -> str:
        return f"{self.day} {self.bed_code}"


class Person(models.Model):
    number = models.UUIDField(unique=True, default=uuid.uuid4)

    def __str__(self) -> str:
        return str(self.number)


class Patient(Person):
    """The natural key is in the parent's table."""

    history = SealedTextField(bind=("number",))

    def __str__(self) -> str:
        return str(self.number)


MODELS: tuple[type[models.Model], ...] = (Chart, Bed, Visit, Person, Patient)
"""Those with a table of their own."""
