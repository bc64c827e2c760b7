"""What was used once and must not be used again."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class UsedIdentifier(models.Model):
    """One spent value, as a digest, remembered until it would be refused for its age anyway."""

    digest = models.CharField(primary_key=True, max_length=64, editable=False)
    """SHA-256 over kind and value, hexadecimal."""
    kind = models.CharField(max_length=32)
    until = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name, verbose_name_plural = _("spent value"), _("spent values")

    def __str__(self) -> str:
        return f"{self.kind} {self.digest[:8]}"
