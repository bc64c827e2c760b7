"""The recipients of disclosures, as the accounting names them."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..audit.models import AppendOnlyModel
from ..fields import SealedTextField


class DisclosureRecipient(AppendOnlyModel):
    """The name and the roles of an account when it saw data of another person: a row for each change.

    The events only have the primary key. An account can be renamed or deleted, and its key reused; and the log cannot
    hold the name, because a rotation of the encryption keys could not encrypt it again there. No foreign key: the row
    is needed for as long as the events.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    """UUIDv7."""
    account = models.CharField(max_length=255)
    """The primary key as text, as in `AuditEvent.actor`."""
    recorded_at = models.DateTimeField()
    identity = SealedTextField(bind=("id", "account", "recorded_at"))
    """JSON: `name`, and the list `roles`."""

    class Meta(AppendOnlyModel.Meta):
        verbose_name, verbose_name_plural = _("recipient of disclosures"), _("recipients of disclosures")
        default_permissions = ()
        indexes = (models.Index(fields=["account", "recorded_at"], name="phi_oidc_recipient_account"),)

    def __str__(self) -> str:
        return str(self.id)
