"""Claims that the project declared and keeps, sealed."""

import uuid

from django.db import models

from ..fields import SealedTextField
from ..subjects.models import PairwiseSubject

NO_SESSION = uuid.UUID(int=0)
"""Stands in `StoredClaim.session` for a claim that outlives its session, so that one unique index serves both kinds."""


class StoredClaim(models.Model):
    """One claim of one person: JSON text, sealed and bound to this subject, session and name."""

    subject = models.ForeignKey(PairwiseSubject, on_delete=models.CASCADE, related_name="claims")
    session = models.UUIDField(default=NO_SESSION, db_index=True)
    """The OIDC session whose end scrubs it, or NO_SESSION."""
    name = models.CharField(max_length=255)
    value = SealedTextField(bind=("subject_id", "session", "name"))
    purpose = models.CharField(max_length=32)
    obtained_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, db_index=True)
    """When the beat task scrubs it; None for a claim of a session."""

    class Meta:
        default_permissions = ("view",)
        permissions = (("reveal_storedclaim", "Can reveal claims of other persons"),)
        constraints = (
            models.UniqueConstraint(fields=["subject", "session", "name"], name="phi_oidc_stored_claim_unique"),
            models.CheckConstraint(
                condition=models.Q(expires_at__isnull=False) | ~models.Q(session=NO_SESSION),
                name="phi_oidc_stored_claim_ends",
            ),
        )

    def __str__(self) -> str:
        return self.name
