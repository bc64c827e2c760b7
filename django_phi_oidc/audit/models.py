"""The trail, and the outbox through which events of changes reach it."""

from typing import Any, NoReturn

from django.core.exceptions import FieldError
from django.db import models


class AppendOnly(FieldError):
    """The audit trail is written once; nothing in it is changed or deleted."""


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise AppendOnly("Audit events are never changed or deleted.")


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    """Reads and inserts. The database's triggers refuse the rest as well."""

    update = delete = bulk_update = update_or_create = _refuse
    aupdate = adelete = abulk_update = aupdate_or_create = _refuse


class AuditEvent(models.Model):
    """One security-relevant act. No foreign keys: deleting a user changes nothing here."""

    id = models.UUIDField(primary_key=True, editable=False)
    """UUIDv7: sorts by time."""
    v = models.PositiveSmallIntegerField()
    mac_key = models.CharField(max_length=8)
    occurred_at = models.DateTimeField()
    action = models.CharField(max_length=256)
    outcome = models.CharField(max_length=8)
    actor = models.CharField(max_length=256, blank=True)
    subject = models.CharField(max_length=256, blank=True)
    provider = models.CharField(max_length=256, blank=True)
    session = models.CharField(max_length=256, blank=True)
    client_ip = models.CharField(max_length=256, blank=True)
    purpose = models.CharField(max_length=256, blank=True)
    resource = models.CharField(max_length=256, blank=True)
    reason = models.CharField(max_length=256, blank=True)
    request_id = models.CharField(max_length=256, blank=True)
    detail = models.TextField(blank=True)
    """Canonical JSON text of a flat object."""
    mac = models.BinaryField(max_length=32)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        ordering = ("id",)
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.action} {self.id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            _refuse()
        kwargs["force_insert"] = True
        super().save(*args, **kwargs)

    delete = _refuse


class AuditOutbox(models.Model):
    """A finished event, committed with the change that it tells of, on its way to the trail."""

    id = models.UUIDField(primary_key=True, editable=False)
    """The event's own id."""
    event = models.TextField()
    """The event's canonical JSON text with its MAC."""

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.id)
