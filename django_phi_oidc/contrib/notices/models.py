"""Notices about accounts, and the browsers that a user has signed in with."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from ...fields import SealedTextField


class AccountNotice(models.Model):
    """A mail to the person about the account, to the address that the account had when it was
    written.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=16)
    """An AccountChange."""
    provider = models.CharField(max_length=64, blank=True)
    """The declared name; empty if it is not declared any more."""
    address = SealedTextField(bind=("id",))
    occurred_at = models.DateTimeField()
    due_at = models.DateTimeField(null=True)
    """When to send it; in the future: leased by a worker, or to be tried again. None: sent, or
    abandoned.
    """
    attempts = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    """When a mail server accepted it."""

    class Meta:
        app_label = "phi_oidc_notices"
        verbose_name = _("notice about an account")
        verbose_name_plural = _("notices about accounts")
        default_permissions = ()
        indexes = (
            models.Index(
                fields=["due_at"], condition=~models.Q(due_at=None), name="phi_oidc_notice_due"
            ),
        )

    def __str__(self) -> str:
        return str(self.id)


class KnownDevice(models.Model):
    """A browser that a user has signed in with. It has a cookie with a random id, of which only
    this digest is stored.

    The digest includes the user, so the rows do not show which users share a browser.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    digest = models.CharField(max_length=64)
    """Hexadecimal."""
    first_used_at = models.DateTimeField()
    last_used_at = models.DateTimeField(db_index=True)

    class Meta:
        app_label = "phi_oidc_notices"
        verbose_name = _("known browser")
        verbose_name_plural = _("known browsers")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(fields=["user", "digest"], name="phi_oidc_known_device_unique"),
        )

    def __str__(self) -> str:
        return str(self.pk)
