"""The model with an encrypted column."""

import uuid

from django.db import models

from django_phi_oidc.fields import SealedTextField


class Held(models.Model):
    """A claim of a person with the columns and indexes of StoredClaim."""

    person = models.BigIntegerField(db_index=True)
    session = models.UUIDField(default=uuid.UUID(int=0), db_index=True)
    name = models.CharField(max_length=255)
    value = SealedTextField(bind=("person", "session", "name"))
    purpose = models.CharField(max_length=32)
    obtained_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, db_index=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["person", "session", "name"], name="held_unique"),)

    def __str__(self) -> str:
        return self.name
