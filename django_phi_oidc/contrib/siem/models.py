"""The delivery state of each sink. A worker holds a row by a lease, never by a lock."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..._internal.lease import LeasedQuerySet


class SinkCursorQuerySet(LeasedQuerySet["SinkCursor"]):
    """Queries of sink cursors."""


class SinkCursor(models.Model):
    """What a sink has of the log: the leaves below tree_size, and the checkpoints up to
    checkpoint_size.

    The leaf hash, root hash and epoch show whether the log is still the one that was delivered.
    """

    objects: ClassVar[models.Manager["SinkCursor"]] = SinkCursorQuerySet.as_manager()

    name = models.CharField(primary_key=True, max_length=64)
    """As declared in SIEM."""
    tree_size = models.BigIntegerField(default=0)
    checkpoint_size = models.BigIntegerField(default=0)
    leaf_hash = models.BinaryField(max_length=32, default=bytes)
    """Of the last leaf delivered; empty before the first."""
    root_hash = models.BinaryField(max_length=32, default=bytes)
    """Of the last checkpoint delivered; empty before the first."""
    epoch = models.PositiveIntegerField(default=0)
    """Of the last checkpoint delivered."""
    attempts = models.PositiveIntegerField(default=0)
    """Since the last success."""
    due_at = models.DateTimeField()
    lease_until = models.DateTimeField(null=True)
    last_fault = models.CharField(max_length=64, blank=True)
    """A code; empty after a success."""
    failing_since = models.DateTimeField(null=True)
    """When the first attempt after the last success failed; None after a success."""
    delivered_at = models.DateTimeField(null=True)
    lagging = models.BooleanField(default=False)
    """True from the alert until the sink has caught up."""

    class Meta:
        app_label = "phi_oidc_siem"
        verbose_name = _("delivery of the audit log")
        verbose_name_plural = _("deliveries of the audit log")
        default_permissions = ("view",)
        permissions = (("deliver_sinkcursor", "Can request deliveries of the audit log"),)

    def __str__(self) -> str:
        return self.name
