"""How far each sink has come, and long work on the trail. Rows are worked on under a lease, never under a lock."""

from datetime import datetime
from typing import ClassVar, Self

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class SinkCursorQuerySet(models.QuerySet["SinkCursor"]):
    """Queries of cursors."""

    def due(self, now: datetime) -> Self:
        """Return those whose time has come and that no worker has at the moment."""
        return self.filter(Q(lease_until=None) | Q(lease_until__lte=now), due_at__lte=now)


class SinkCursor(models.Model):
    """What a sink has of the log: the leaves below tree_size, and the checkpoints up to checkpoint_size.

    The leaf hash, root hash and epoch tell whether the log is still the one that was delivered.
    """

    objects: ClassVar[models.Manager["SinkCursor"]] = SinkCursorQuerySet.as_manager()

    name = models.CharField(primary_key=True, max_length=64)
    """As declared in AUDIT['sinks']."""
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
    delivered_at = models.DateTimeField(null=True)
    lagging = models.BooleanField(default=False)
    """An alert was raised, and it has not caught up since."""

    class Meta:
        verbose_name, verbose_name_plural = _("sink cursor"), _("sink cursors")
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
