"""The accountings of disclosures that were given, and the recipients that they name."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from ...audit.models import AppendOnlyModel
from ...fields import SealedTextField


class AccountingCopy(models.Model):
    """What was given to a person, or a page of it. The same lines are stored once."""

    id = models.UUIDField(primary_key=True, editable=False)
    account = models.CharField(_("account"), max_length=255, editable=False)
    """The primary key of the person's account as text; kept when the account is deleted."""
    sha256 = models.CharField(_("SHA-256"), max_length=64, editable=False)
    """Hexadecimal, of the lines in UTF-8, as in the events of these accountings."""
    count = models.PositiveIntegerField(_("lines"), editable=False)
    lines = SealedTextField(bind=("id", "account", "sha256"))
    """A JSON object a line."""
    first_given_at = models.DateTimeField(_("first given at"), editable=False)
    last_given_at = models.DateTimeField(_("last given at"), editable=False, db_index=True)

    class Meta:
        app_label = "phi_oidc_individual_rights"
        verbose_name = _("accounting of disclosures")
        verbose_name_plural = _("accountings of disclosures")
        default_permissions = ("view",)
        indexes = (models.Index(fields=["account", "sha256"], name="phi_oidc_accounting_copy"),)

    def __str__(self) -> str:
        return str(self.id)


class DisclosureRecipient(AppendOnlyModel):
    """The name and the roles of an account when it saw data of another person: a row for each
    change.

    The events only have the primary key. An account can be renamed or deleted, and its key reused;
    and the log cannot hold the name, because a rotation of the encryption keys could not encrypt it
    again there. No foreign key: the row is needed for as long as the events.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    """UUIDv7."""
    account = models.CharField(max_length=255)
    """The primary key as text, as in `AuditEvent.actor`."""
    recorded_at = models.DateTimeField()
    identity = SealedTextField(bind=("id", "account", "recorded_at"))
    """JSON: `name`, and the list `roles`."""

    class Meta(AppendOnlyModel.Meta):
        app_label = "phi_oidc_individual_rights"
        verbose_name = _("recipient of disclosures")
        verbose_name_plural = _("recipients of disclosures")
        default_permissions = ()
        indexes = (
            models.Index(fields=["account", "recorded_at"], name="phi_oidc_recipient_account"),
        )

    def __str__(self) -> str:
        return str(self.id)
