"""Alerts and mutes, and the state of the rules between two runs."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from .severity import Severity

_SEVERITY_CHOICES = list(
    zip(map(str, Severity), (_("info"), _("warning"), _("critical")), strict=True)
)


class WatchCursor(models.Model):
    """How far the rules have read the log. It changes in one transaction with their memory and
    alerts.
    """

    name = models.CharField(primary_key=True, max_length=16, editable=False)
    version = models.PositiveBigIntegerField(default=0)
    """Incremented by each batch: a worker with an old version writes nothing."""
    tree_size = models.BigIntegerField(default=0)
    """The leaves below it have been read."""
    leaf_hash = models.BinaryField(max_length=32, default=bytes)
    """Of the last leaf read; empty before the first. Shows whether the log is still the one that
    was read.
    """
    sealed_at = models.DateTimeField(null=True)
    """When that leaf was sealed."""

    class Meta:
        app_label = "phi_oidc_monitoring"
        verbose_name = _("watch cursor")
        verbose_name_plural = _("watch cursors")
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class AnomalyMemory(models.Model):
    """The memory of a rule for one key."""

    pk = models.CompositePrimaryKey("kind", "key")
    kind = models.CharField(max_length=64)
    key = models.CharField(max_length=256, blank=True)
    state = models.TextField()
    """JSON."""
    expires_at = models.DateTimeField()
    """Without an index: it changes with each batch, and the table is small."""

    class Meta:
        app_label = "phi_oidc_monitoring"
        verbose_name = _("anomaly memory")
        verbose_name_plural = _("anomaly memories")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class SecurityAlert(models.Model):
    """An alert for the operators. Each kind and key has one open alert, which counts further
    occurrences.
    """

    kind = models.CharField(_("kind"), max_length=64, editable=False)
    severity = models.CharField(
        _("severity"), max_length=8, editable=False, choices=_SEVERITY_CHOICES
    )
    key = models.CharField(_("key"), max_length=256, blank=True, editable=False)
    """The person or thing that it concerns, as in the audit log."""
    count = models.PositiveBigIntegerField(_("count"), default=0, editable=False)
    first_seen = models.DateTimeField(_("first seen"), editable=False)
    last_seen = models.DateTimeField(_("last seen"), editable=False)
    event = models.UUIDField(_("event"), null=True, editable=False)
    """The newest event that raised it; None if no event did."""
    due_at = models.DateTimeField(null=True, editable=False)
    """When to send it; None: not to be sent."""
    notified_at = models.DateTimeField(_("notified at"), null=True, editable=False)
    acknowledged_at = models.DateTimeField(_("acknowledged at"), null=True, editable=False)
    acknowledged_by = models.CharField(
        _("acknowledged by"), max_length=256, blank=True, editable=False
    )
    """The user's primary key as text."""
    note = models.TextField(_("note"), blank=True, max_length=2000)
    """The outcome. It is not in the audit log."""

    class Meta:
        app_label = "phi_oidc_monitoring"
        verbose_name = _("security alert")
        verbose_name_plural = _("security alerts")
        default_permissions = ("view",)
        permissions = (
            ("acknowledge_securityalert", gettext_noop("Can acknowledge security alerts")),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["kind", "key"],
                condition=Q(acknowledged_at=None),
                name="phi_oidc_securityalert_open",
            ),
        )
        indexes = (
            models.Index(
                fields=["due_at"], condition=~Q(due_at=None), name="phi_oidc_securityalert_due"
            ),
            models.Index(fields=["-last_seen"], name="phi_oidc_securityalert_seen"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"


class AlertMute(models.Model):
    """Such alerts are not sent for a time; they are still raised and counted."""

    kind = models.CharField(_("kind"), max_length=64)
    key = models.CharField(_("key"), max_length=256, blank=True)
    """Empty: all keys of that kind."""
    until = models.DateTimeField(_("until"))
    note = models.CharField(_("note"), max_length=255)
    """The reason. It is not in the audit log."""
    muted_at = models.DateTimeField(_("muted at"), editable=False)
    muted_by = models.CharField(_("muted by"), max_length=256, blank=True, editable=False)
    lifted_at = models.DateTimeField(_("lifted at"), null=True, editable=False)
    """When it was ended before its time."""

    class Meta:
        app_label = "phi_oidc_monitoring"
        verbose_name = _("alert mute")
        verbose_name_plural = _("alert mutes")
        default_permissions = ("view", "add", "change")
        indexes = (models.Index(fields=["kind", "until"], name="phi_oidc_alertmute_kind"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.key}".rstrip()
