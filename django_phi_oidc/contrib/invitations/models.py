"""Activation codes."""

from datetime import datetime

from django.conf import settings
from django.db import models
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _


class ActivationCodeQuerySet(models.QuerySet["ActivationCode"]):
    def unused(self) -> "ActivationCodeQuerySet":
        """Exclude redeemed and revoked codes, but not expired ones."""
        return self.filter(redeemed_at=None, revoked_at=None)

    def redeemable(self, *, now: datetime) -> "ActivationCodeQuerySet":
        return self.unused().filter(expires_at__gt=now)


class ActivationCode(models.Model):
    """An invitation: a person who signs in and knows the code is linked to this user, once. Only a
    digest is stored.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("user"), on_delete=models.CASCADE, related_name="+"
    )
    provider = models.CharField(_("provider"), max_length=64)
    key_id = models.CharField(max_length=8, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    """Hexadecimal, of issuer and code, under that subject key."""
    created_at = models.DateTimeField(_("created at"), editable=False)
    created_by = models.CharField(_("created by"), max_length=255, editable=False)
    """The actor: the primary key of the creating user, or the operator of a command."""
    expires_at = models.DateTimeField(_("expires at"), editable=False)
    redeemed_at = models.DateTimeField(_("redeemed at"), null=True, editable=False)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, editable=False)
    privileges = models.JSONField(default=list, editable=False)
    """What the user could do when the code was created, as `list_privileges` returns it."""
    binding = models.CharField(max_length=64, editable=False)
    """Binds digest, user and privileges: see `compute_activation_binding`."""

    objects = ActivationCodeQuerySet.as_manager()

    class Meta:
        app_label = "phi_oidc_invitations"
        verbose_name = _("activation code")
        verbose_name_plural = _("activation codes")
        default_permissions = ("view",)
        permissions = (
            ("issue_activationcode", gettext_noop("Can make and revoke activation codes")),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["digest"], name="phi_oidc_activation_code_digest_unique"
            ),
            # Of two concurrent creations, one fails, so that a user never has two valid codes.
            models.UniqueConstraint(
                fields=["user", "provider"],
                condition=models.Q(redeemed_at=None, revoked_at=None),
                name="phi_oidc_activation_code_live_unique",
            ),
        )

    def __str__(self) -> str:
        return gettext("for user %(user)s") % {"user": self.user_id}
