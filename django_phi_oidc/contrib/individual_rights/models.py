"""The accountings of disclosures that were given."""

from django.db import models
from django.utils.translation import gettext_lazy as _

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
        verbose_name, verbose_name_plural = _("accounting of disclosures"), _("accountings of disclosures")
        default_permissions = ("view",)
        indexes = (models.Index(fields=["account", "sha256"], name="phi_oidc_accounting_copy"),)

    def __str__(self) -> str:
        return str(self.id)
