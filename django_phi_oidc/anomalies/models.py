"""What somebody should look at, who did, and what the rules remember between two runs."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .rules import Severity

_SEVERITY_CHOICES = [
    (Severity.INFO.value, _("info")),
    (Severity.WARNING.value, _("warning")),
    (Severity.CRITICAL.value, _("critical")),
]


class WatchCursor(models.Model):
    """How far the rules have read the log. It moves with what they remember and raise, in one transaction."""

    name = models.CharField(primary_key=True, max_length=16, editable=False)
    version = models.PositiveBigIntegerField(default=0)
    """One more with each batch: whoever read it before another moved it writes nothing."""
    tree_size = models.BigIntegerField(default=0)
    """The leaves below it were read."""
    leaf_hash = models.BinaryField(max_length=32, default=bytes)
    """Of the last leaf read; empty before the first: tells whether the log is still the one that was read."""
    sealed_at = models.DateTimeField(null=True)
    """When that leaf was."""

    class Meta:
        verbose_name, verbose_name_plural = _("watch cursor"), _("watch cursors")
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class AnomalyMemory(models.Model):
    """What a rule remembers of one key."""

    pk = models.CompositePrimaryKey("kind", "key")
    kind = models.CharField(max_length=64)
    key = models.CharField(max_length=256, blank=True)
    state = models.TextField()
    """JSON."""
    expires_at = models.DateTimeField()
    """No index has it: it changes with each batch, and what is over is found in one look at this small table."""

    class Meta:
        verbose_name, verbose_name_plural = _("anomaly memory"), _("anomaly memories")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class SecurityAlert(models.Model):
    """Something that a person should look at. Of a kind and key one is open; what comes again is counted there."""

    kind = models.CharField(_("kind"), max_length=64, editable=False)
    severity = models.CharField(_("severity"), max_length=8, editable=False, choices=_SEVERITY_CHOICES)
    key = models.CharField(_("key"), max_length=256, blank=True, editable=False)
    """Whom or what it is about: as the trail has it."""
    count = models.PositiveBigIntegerField(_("count"), default=0, editable=False)
    first_seen = models.DateTimeField(_("first seen"), editable=False)
    last_seen = models.DateTimeField(_("last seen"), editable=False)
    event = models.UUIDField(_("event"), null=True, editable=False)
    """The newest event of the trail that raised it; None where none did."""
    due_at = models.DateTimeField(null=True, editable=False)
    """When people are to be told of it; None: nobody is."""
    told_at = models.DateTimeField(_("told at"), null=True, editable=False)
    acknowledged_at = models.DateTimeField(_("acknowledged at"), null=True, editable=False)
    acknowledged_by = models.CharField(_("acknowledged by"), max_length=256, blank=True, editable=False)
    """The user's primary key as text."""
    note = models.TextField(_("note"), blank=True, max_length=2000)
    """What came of it. It is not in the trail."""

    class Meta:
        verbose_name, verbose_name_plural = _("security alert"), _("security alerts")
        default_permissions = ("view",)
        permissions = (("acknowledge_securityalert", "Can acknowledge security alerts"),)
        constraints = (
            models.UniqueConstraint(
                fields=["kind", "key"], condition=Q(acknowledged_at=None), name="phi_oidc_securityalert_open"
            ),
        )
        indexes = (
            models.Index(fields=["due_at"], condition=~Q(due_at=None), name="phi_oidc_securityalert_due"),
            models.Index(fields=["-last_seen"], name="phi_oidc_securityalert_seen"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"


class AlertMute(models.Model):
    """Nobody is told of such alerts for a time; they are raised and counted all the same."""

    kind = models.CharField(_("kind"), max_length=64)
    key = models.CharField(_("key"), max_length=256, blank=True)
    """Empty: all of that kind."""
    until = models.DateTimeField(_("until"))
    note = models.CharField(_("note"), max_length=255)
    """Why. It is not in the trail."""
    muted_at = models.DateTimeField(_("muted at"), editable=False)
    muted_by = models.CharField(_("muted by"), max_length=256, blank=True, editable=False)
    lifted_at = models.DateTimeField(_("lifted at"), null=True, editable=False)
    """When somebody ended it before its time."""

    class Meta:
        verbose_name, verbose_name_plural = _("alert mute"), _("alert mutes")
        default_permissions = ("view", "add", "change")
        indexes = (models.Index(fields=["kind", "until"], name="phi_oidc_alertmute_kind"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.key}".rstrip()
