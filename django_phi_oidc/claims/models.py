"""Stored claims, encrypted."""

import uuid
from datetime import UTC, datetime
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from ..crypto import claim_keys
from ..errors import CiphertextInvalid
from ..fields import SealedTextField
from ..subjects.models import PairwiseSubject

FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
"""The `held_until` of a hold without an end, and the `retained_until` of a claim that ends with its
session.
"""
NO_SESSION = uuid.UUID(int=0)
"""The `StoredClaim.session` of a claim that outlives its session, so that one unique index covers
both kinds.
"""


STANDARD_LABELS = (
    gettext_noop("Address"),
    gettext_noop("Birthdate"),
    gettext_noop("Email"),
    gettext_noop("Email verified"),
    gettext_noop("Family name"),
    gettext_noop("Gender"),
    gettext_noop("Given name"),
    gettext_noop("Locale"),
    gettext_noop("Middle name"),
    gettext_noop("Name"),
    gettext_noop("Nickname"),
    gettext_noop("Phone number"),
    gettext_noop("Phone number verified"),
    gettext_noop("Picture"),
    gettext_noop("Preferred username"),
    gettext_noop("Profile"),
    gettext_noop("Updated at"),
    gettext_noop("Website"),
    gettext_noop("Zoneinfo"),
)
"""Labels of the claims of OpenID Connect Core 1.0, section 5.1."""


def get_claim_label(name: str) -> str:
    """Return the name of a claim in words, for example “Phone number”, in the language of the page.

    The catalogues of a project can translate the words of its own claims.
    """
    return gettext(name.replace("_", " ").capitalize())


def get_session_claim_condition(*, is_session_live: bool) -> Q:
    """Return the condition of a claim that expires with a session, which is live; or which is gone:
    an orphaned claim.

    Code of the host project can delete the row of a session past Django's signals, by SQL.
    """
    # By name, because sessions are a layer above claims.
    sessions = apps.get_model("django_phi_oidc", "OIDCSession")._default_manager
    live = Exists(sessions.filter(pk=OuterRef("session"), ended_at=None))
    # In this order, so that the database looks for a session only if the claim has no time of its
    # own.
    return Q(("expires_at", None), Q(live) if is_session_live else ~Q(live))


class StoredClaim(models.Model):
    """One claim of one person: JSON text, encrypted and bound to this subject, session, name,
    account and retention.
    """

    subject = models.ForeignKey(
        PairwiseSubject,
        verbose_name=_("subject"),
        on_delete=models.CASCADE,
        related_name="claims",
        db_index=False,
    )
    session = models.UUIDField(_("session"), default=NO_SESSION)
    """The OIDC session whose end erases the claim, or NO_SESSION."""
    name = models.CharField(_("name"), max_length=255)
    bucket = models.CharField(_("bucket"), max_length=40, default="", editable=False)
    """The retention key that encrypts the value, together with that of the person; empty: one of
    KEYS['encryption'].
    """
    value = SealedTextField(
        bind=("subject_id", "session", "name", "owner", "retained_until"),
        bucket="retention_key_names",
    )
    purpose = models.CharField(_("purpose"), max_length=32)
    obtained_at = models.DateTimeField(_("obtained at"))
    expires_at = models.DateTimeField(_("expires at"), null=True, db_index=True)
    """When the periodic task erases it; None for a claim of an active session."""
    held_until = models.DateTimeField(_("held until"), null=True, editable=False)
    """The end of the subject's legal hold, until which nothing erases the claim; None: no hold."""
    owner = models.CharField(max_length=255, editable=False)
    """The primary key of the account for which the claim was stored. It never changes."""
    retained_until = models.DateTimeField(editable=False)
    """The end of the retention that was declared when the claim was stored. It never changes."""

    class Meta:
        verbose_name = _("stored claim")
        verbose_name_plural = _("stored claims")
        default_permissions = ("view",)
        permissions = (("scrub_storedclaim", gettext_noop("Can erase claims of other persons")),)
        indexes = (
            models.Index(fields=["bucket"], condition=~Q(bucket=""), name="phi_oidc_claim_bucket"),
            models.Index(
                fields=["session"], condition=~Q(session=NO_SESSION), name="phi_oidc_claim_session"
            ),
        )
        constraints = (
            # Also the index of the foreign key.
            models.UniqueConstraint(
                fields=["subject", "session", "name"], name="phi_oidc_stored_claim_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(expires_at__isnull=False) | ~models.Q(session=NO_SESSION),
                name="phi_oidc_stored_claim_ends",
            ),
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Not when Django reads a row: it passes the values by position.
        if kwargs and not args:
            kwargs.setdefault("retained_until", kwargs.get("expires_at") or FOREVER)
            if isinstance(subject := kwargs.get("subject"), PairwiseSubject):
                kwargs.setdefault("owner", str(subject.user_id))
        super().__init__(*args, **kwargs)

    def __str__(self) -> str:
        return self.name

    @property
    def retention_key_names(self) -> str:
        """The names of all retention keys that encrypt the value. Requires: the instance has the
        current subject.

        Raises: KeyMissing, if no app supplies the keys.
        """
        return claim_keys.join_names(self.bucket, self.subject.retention_key_id)

    @property
    def ends_at(self) -> datetime:
        """When the claim expires: an `expires_at` after the declared retention was not written by
        this package.
        """
        return min(self.expires_at or FOREVER, self.retained_until)

    def validate_owner(self, user_id: Any) -> None:
        """Check that the claim was stored for the account that its subject is linked to now.

        Raises: CiphertextInvalid, because the link was changed in the database.
        """
        if self.owner != str(user_id):
            raise CiphertextInvalid
