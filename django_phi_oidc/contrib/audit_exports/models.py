"""Exports and verifications of the audit log that a worker runs. A worker holds a row by a lease,
never by a lock.
"""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..._internal.lease import LeasedQuerySet


class TrailJob(models.Model):
    """A request that takes a worker's time: an export of many events, or a verification."""

    EXPORT = "export"
    VERIFICATION = "verification"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    TAKEN = "taken"

    objects: ClassVar[models.Manager["TrailJob"]] = LeasedQuerySet.as_manager()

    id = models.UUIDField(primary_key=True, editable=False)
    """UUIDv7: sorts by the time of the request."""
    kind = models.CharField(max_length=16)
    asked_by = models.CharField(max_length=256)
    """The actor of its events."""
    asked_at = models.DateTimeField()
    format = models.CharField(max_length=8, blank=True)
    filters = models.JSONField(default=dict)
    """As in the query string of the audit log's page."""
    state = models.CharField(max_length=8, default=WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    """Also the fencing token: a worker with an older number writes nothing."""
    lease_until = models.DateTimeField(null=True)
    done = models.BigIntegerField(default=0)
    total = models.BigIntegerField(default=0)
    """0: unknown."""
    fault = models.CharField(max_length=64, blank=True)
    """A code."""
    result = models.JSONField(default=dict)

    class Meta:
        app_label = "phi_oidc_audit_exports"
        verbose_name = _("export or verification")
        verbose_name_plural = _("exports and verifications")
        default_permissions = ()
        indexes = (models.Index(fields=["asked_at"], name="phi_oidc_trailjob_asked"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def is_open(self) -> bool:
        """True while a worker still has to run it or runs it."""
        return self.state in (self.WAITING, self.RUNNING)
