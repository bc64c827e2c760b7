"""The clinic's own data about patients."""

import uuid

from django.conf import settings
from django.db import models

from django_phi_oidc.fields import SealedTextField


class Chart(models.Model):
    """A patient's chart. `charts.CareTeamBackend` decides about the permission for each chart."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    patient = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="chart")
    care_team = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="charts", blank=True)
    """The users who treat the patient."""
    notes = SealedTextField(bind=("id",), null=True)

    class Meta:
        # Explicit, because some tests serve these pages without installing the portal.
        app_label = "portal"
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return f"Chart {self.pk}"
