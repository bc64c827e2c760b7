"""Identifiers that were used once and must not be used again."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class UsedIdentifier(models.Model):
    """The digest of a used identifier, stored until the identifier would be refused for its age
    anyway.
    """

    digest = models.CharField(primary_key=True, max_length=64, editable=False)
    """SHA-256 of kind and identifier, hexadecimal."""
    kind = models.CharField(max_length=32)
    until = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("used identifier")
        verbose_name_plural = _("used identifiers")

    def __str__(self) -> str:
        return f"{self.kind} {self.digest[:8]}"
