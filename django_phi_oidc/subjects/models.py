"""Persons by (issuer, `sub`), stored as keyed digests only, their identifiers for other systems, activation codes."""

from datetime import datetime
from enum import StrEnum
from uuid import uuid4

from django.conf import settings
from django.db import models
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from ..audit.events import Origin
from ..fields import SealedTextField


class PairwiseSubject(models.Model):
    """A person as identified by one issuer, linked to a user. Deletion unlinks: sessions end, claims are erased."""

    uuid = models.UUIDField(_("UUID"), unique=True, editable=False)
    """Random and local: the pseudonym in the audit log."""
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("user"), on_delete=models.CASCADE, related_name="pairwise_subjects"
    )
    issuer = models.CharField(_("issuer"), max_length=255)
    first_seen_at = models.DateTimeField(_("first seen at"))
    """The time of the first sign-in, or of the link that an administrator created before it."""
    last_seen_at = models.DateTimeField(_("last seen at"))
    held_until = models.DateTimeField(null=True, editable=False)
    """The end of the legal hold that prevents the deletion of the subject and its claims; None without a hold."""
    retention_key_id = models.UUIDField(default=uuid4, editable=False)
    """The id of the person's retention key. An erasure on request replaces it, and the key is destroyed."""

    deleted_by: Origin = Origin()
    """The origin of the events of a deletion: set on the instance before `delete()`. Not a column."""

    class Meta:
        verbose_name, verbose_name_plural = _("pairwise subject"), _("pairwise subjects")
        permissions = (
            ("export_pairwisesubject", gettext_noop("Can export all that is held of persons")),
            ("reveal_storedclaim", gettext_noop("Can reveal claims of other persons")),
        )

    def __str__(self) -> str:
        return str(self.uuid)


class SubjectDigest(models.Model):
    """HMAC-SHA256 of (issuer, `sub`) under one subject key. A subject has one for each configured key."""

    subject = models.ForeignKey(PairwiseSubject, on_delete=models.CASCADE, related_name="digests")
    issuer = models.CharField(max_length=255)
    key_id = models.CharField(max_length=8)
    digest = models.CharField(max_length=64)
    """Hexadecimal."""
    binding = models.CharField(max_length=64)
    """Binds digest, subject and user: see `compute_link_binding`."""

    class Meta:
        verbose_name, verbose_name_plural = _("subject digest"), _("subject digests")
        indexes = (models.Index(fields=["key_id"], name="phi_oidc_subject_digest_key"),)
        constraints = (models.UniqueConstraint(fields=["issuer", "digest"], name="phi_oidc_subject_digest_unique"),)

    def __str__(self) -> str:
        return gettext("under key %(key)s") % {"key": self.key_id}


class PairwiseIdentifier(models.Model):
    """The identifier of a user in one sector, that is, for one other system. It never changes."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    sector = models.CharField(max_length=255)
    value = models.CharField(max_length=64)
    """Hexadecimal."""

    class Meta:
        verbose_name, verbose_name_plural = _("pairwise identifier"), _("pairwise identifiers")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(fields=["user", "sector"], name="phi_oidc_pairwise_user_sector_unique"),
            models.UniqueConstraint(fields=["sector", "value"], name="phi_oidc_pairwise_sector_value_unique"),
        )

    def __str__(self) -> str:
        return gettext("in %(sector)s") % {"sector": self.sector}


class ActivationCodeQuerySet(models.QuerySet["ActivationCode"]):
    def unused(self) -> "ActivationCodeQuerySet":
        """Exclude redeemed and revoked codes, but not expired ones."""
        return self.filter(redeemed_at=None, revoked_at=None)

    def redeemable(self, *, now: datetime) -> "ActivationCodeQuerySet":
        return self.unused().filter(expires_at__gt=now)


class ActivationCode(models.Model):
    """An invitation: a person who signs in and knows the code is linked to this user, once. Only a digest is stored."""

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
        verbose_name, verbose_name_plural = _("activation code"), _("activation codes")
        default_permissions = ("view",)
        permissions = (("issue_activationcode", gettext_noop("Can make and revoke activation codes")),)
        constraints = (
            models.UniqueConstraint(fields=["digest"], name="phi_oidc_activation_code_digest_unique"),
            # Of two concurrent creations, one fails, so that a user never has two valid codes.
            models.UniqueConstraint(
                fields=["user", "provider"],
                condition=models.Q(redeemed_at=None, revoked_at=None),
                name="phi_oidc_activation_code_live_unique",
            ),
        )

    def __str__(self) -> str:
        return gettext("for user %(user)s") % {"user": self.user_id}


class NoticeKind(StrEnum):
    """What a notice is about."""

    LINKED = "linked"
    UNLINKED = "unlinked"
    NEW_DEVICE = "new_device"
    LONG_ABSENCE = "long_absence"
    SIGN_IN_REFUSED = "sign_in_refused"
    STEP_UP_REFUSED = "step_up_refused"
    CODE_REFUSED = "code_refused"
    PASSWORD_REFUSED = "password_refused"
    EMAIL_CHANGED = "email_changed"
    PASSWORD_CHANGED = "password_changed"
    ACTIVATED = "activated"
    DEACTIVATED = "deactivated"
    SESSIONS_ENDED = "sessions_ended"


class AccountNotice(models.Model):
    """A mail to the person about the account, to the address that the account had when it was written."""

    id = models.UUIDField(primary_key=True, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=16)
    """A NoticeKind."""
    provider = models.CharField(max_length=64, blank=True)
    """The declared name; empty if it is not declared any more."""
    address = SealedTextField(bind=("id",))
    occurred_at = models.DateTimeField()
    due_at = models.DateTimeField(null=True)
    """When to send it; in the future: leased by a worker, or to be tried again. None: sent, or abandoned."""
    attempts = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    """When a mail server accepted it."""

    class Meta:
        verbose_name, verbose_name_plural = _("notice about an account"), _("notices about accounts")
        default_permissions = ()
        indexes = (models.Index(fields=["due_at"], condition=~models.Q(due_at=None), name="phi_oidc_notice_due"),)

    def __str__(self) -> str:
        return str(self.id)


class KnownDevice(models.Model):
    """A browser that a user has signed in with. It has a cookie with a random id, of which only this digest is stored.

    The digest includes the user, so the rows do not show which users share a browser.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    digest = models.CharField(max_length=64)
    """Hexadecimal."""
    first_used_at = models.DateTimeField()
    last_used_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name, verbose_name_plural = _("known browser"), _("known browsers")
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=["user", "digest"], name="phi_oidc_known_device_unique"),)

    def __str__(self) -> str:
        return str(self.pk)
