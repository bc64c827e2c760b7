"""Persons by (issuer, `sub`), stored as keyed digests only, their identifiers for other systems."""

from datetime import datetime
from uuid import uuid4

from django.conf import settings
from django.db import models
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _


class PairwiseSubject(models.Model):
    """A person as identified by one issuer, linked to a user. Deletion unlinks: sessions end,
    claims are erased.
    """

    uuid = models.UUIDField(_("UUID"), unique=True, editable=False)
    """Random and local: the pseudonym in the audit log."""
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        related_name="pairwise_subjects",
    )
    issuer = models.CharField(_("issuer"), max_length=255)
    first_seen_at = models.DateTimeField(_("first seen at"))
    """The time of the first sign-in, or of the link that an administrator created before it."""
    last_seen_at = models.DateTimeField(_("last seen at"))
    held_until = models.DateTimeField(null=True, editable=False)
    """The end of the legal hold that prevents the deletion of the subject and its claims; None
    without a hold.
    """
    retention_key_id = models.UUIDField(default=uuid4, editable=False)
    """The id of the person's retention key. An erasure on request replaces it, and the key is
    destroyed.
    """

    class Meta:
        verbose_name = _("pairwise subject")
        verbose_name_plural = _("pairwise subjects")
        permissions = (
            ("export_pairwisesubject", gettext_noop("Can export all that is held of persons")),
            ("reveal_storedclaim", gettext_noop("Can reveal claims of other persons")),
        )

    def __str__(self) -> str:
        return str(self.uuid)

    def is_held(self, *, now: datetime) -> bool:
        """Return whether a legal hold preserves the subject, according to the instance."""
        return self.held_until is not None and self.held_until > now


class SubjectDigest(models.Model):
    """HMAC-SHA256 of (issuer, `sub`) under one subject key. A subject has one for each configured
    key.
    """

    subject = models.ForeignKey(PairwiseSubject, on_delete=models.CASCADE, related_name="digests")
    issuer = models.CharField(max_length=255)
    key_id = models.CharField(max_length=8)
    digest = models.CharField(max_length=64)
    """Hexadecimal."""
    binding = models.CharField(max_length=64)
    """Binds digest, subject and user: see `compute_link_binding`."""

    class Meta:
        verbose_name = _("subject digest")
        verbose_name_plural = _("subject digests")
        indexes = (models.Index(fields=["key_id"], name="phi_oidc_subject_digest_key"),)
        constraints = (
            models.UniqueConstraint(
                fields=["issuer", "digest"], name="phi_oidc_subject_digest_unique"
            ),
        )

    def __str__(self) -> str:
        return gettext("under key %(key)s") % {"key": self.key_id}


class PairwiseIdentifier(models.Model):
    """The identifier of a user in one sector, that is, for one other system. It never changes."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    sector = models.CharField(max_length=255)
    value = models.CharField(max_length=64)
    """Hexadecimal."""

    class Meta:
        verbose_name = _("pairwise identifier")
        verbose_name_plural = _("pairwise identifiers")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["user", "sector"], name="phi_oidc_pairwise_user_sector_unique"
            ),
            models.UniqueConstraint(
                fields=["sector", "value"], name="phi_oidc_pairwise_sector_value_unique"
            ),
        )

    def __str__(self) -> str:
        return gettext("in %(sector)s") % {"sector": self.sector}
