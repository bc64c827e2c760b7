"""Emergency access ("break the glass"): what was opened, until when, and the review."""

from datetime import datetime
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from ...fields import SealedTextField

ALL_RESOURCES = "*"
"""The value of `EmergencyAccess.resource` that means every resource."""


class CloseReason(models.TextChoices):
    CLOSED = "closed", _("closed by the person")
    EXPIRED = "expired", _("expired")
    ADMINISTRATOR = "administrator", _("closed by an administrator")


class ReviewVerdict(models.TextChoices):
    JUSTIFIED = "justified", _("justified")
    NOT_JUSTIFIED = "not_justified", _("not justified")


class EmergencyQuerySet(models.QuerySet["EmergencyAccess"]):
    def currently_open(self, *, now: datetime) -> Self:
        return self.filter(closed_at=None, expires_at__gt=now)

    def expired_unclosed(self, *, now: datetime) -> Self:
        return self.filter(closed_at=None, expires_at__lte=now)

    def awaiting_review(self, *, now: datetime) -> Self:
        return self.filter(reviewed_at=None).exclude(closed_at=None, expires_at__gt=now)

    def ended_before(self, time: datetime) -> Self:
        return self.filter(Q(closed_at__lte=time) | Q(closed_at=None, expires_at__lte=time))


class EmergencyAccess(models.Model):
    """Permissions that a person claimed. It is open while `closed_at` is None and `expires_at` is
    in the future.
    """

    id = models.UUIDField(_("id"), primary_key=True, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        related_name="+",
        null=True,
        editable=False,
        verbose_name=_("user"),
    )
    actor = models.CharField(max_length=255, editable=False)
    """The user's primary key as text; kept when the account is deleted."""
    is_local = models.BooleanField(_("local account"), default=False, editable=False)
    """A local account opened it. An emergency applies only to sign-ins of the kind that opened
    it.
    """
    resource = models.CharField(_("resource"), max_length=200, editable=False)
    """`Type/id`, or ALL_RESOURCES."""
    permissions = models.JSONField(editable=False)
    """A list of Django permissions."""
    purpose = models.CharField(_("purpose"), max_length=16, editable=False)
    """HL7 PurposeOfUse: ETREAT or BTG."""
    reason = SealedTextField(bind=("id",))
    """Free text of the person, which may name a patient."""
    opened_at = models.DateTimeField(_("opened at"), editable=False)
    expires_at = models.DateTimeField(_("expires at"), editable=False)
    closed_at = models.DateTimeField(null=True, editable=False)
    close_reason = models.CharField(max_length=16, choices=CloseReason, default="", editable=False)
    alert_due_at = models.DateTimeField(null=True, editable=False)
    """When to send the mail to the privacy officer; in the future: leased by a worker. None:
    nothing to send.
    """
    alerted_at = models.DateTimeField(_("alerted at"), null=True, editable=False)
    """When a mail server accepted the mail."""
    reviewed_by = models.CharField(max_length=255, default="", editable=False)
    """The reviewer's primary key as text."""
    reviewed_at = models.DateTimeField(null=True, editable=False)
    verdict = models.CharField(
        _("verdict"), max_length=16, choices=ReviewVerdict, default="", editable=False
    )
    note = SealedTextField(bind=("id",), null=True)
    """Free text of the reviewer."""

    objects = EmergencyQuerySet.as_manager()

    class Meta:
        app_label = "phi_oidc_emergency"
        verbose_name = _("emergency access")
        verbose_name_plural = _("emergency accesses")
        default_permissions = ("view",)
        permissions = (
            ("open_emergencyaccess", gettext_noop("Can open emergency access to one resource")),
            (
                "open_emergencyaccess_everywhere",
                gettext_noop("Can open emergency access to every resource"),
            ),
            (
                "review_emergencyaccess",
                gettext_noop("Can review emergency access of other persons, and close it"),
            ),
        )
        indexes = (
            models.Index(
                fields=["expires_at"], condition=Q(closed_at=None), name="phi_oidc_emergency_open"
            ),
            models.Index(
                fields=["alert_due_at"],
                condition=~Q(alert_due_at=None),
                name="phi_oidc_emergency_alert",
            ),
            models.Index(fields=["opened_at"], name="phi_oidc_emergency_opened"),
        )
        constraints = (
            models.CheckConstraint(
                condition=Q(expires_at__gt=F("opened_at")), name="phi_oidc_emergency_ends"
            ),
            models.CheckConstraint(
                condition=Q(closed_at=None, close_reason="")
                | (~Q(closed_at=None) & ~Q(close_reason="")),
                name="phi_oidc_emergency_closed",
            ),
            models.CheckConstraint(
                condition=~Q(reviewed_by=F("actor")), name="phi_oidc_emergency_two_persons"
            ),
            models.CheckConstraint(
                condition=Q(reviewed_at=None, reviewed_by="", verdict="", note__isnull=True)
                | (~Q(reviewed_at=None) & ~Q(reviewed_by="") & ~Q(verdict="")),
                name="phi_oidc_emergency_reviewed",
            ),
        )

    def __str__(self) -> str:
        return str(self.id)

    def has_ended(self, *, now: datetime) -> bool:
        """Return whether it is closed or expired, and so grants nothing."""
        return self.closed_at is not None or self.expires_at <= now

    def get_end(self) -> datetime:
        """Return when it ended, or will end at the latest."""
        return self.closed_at or self.expires_at
