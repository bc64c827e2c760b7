"""Keys of erased persons, until they are destroyed."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from .key_names import person_key_name


class UnusedPersonKey(models.Model):
    """The retention key of an erased person, from the transaction that erases until the key is
    destroyed.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    subject_uuid = models.UUIDField(editable=False)

    class Meta:
        app_label = "phi_oidc_retention_keys"
        verbose_name = _("unused person key")
        verbose_name_plural = _("unused person keys")
        default_permissions = ()

    def __str__(self) -> str:
        return person_key_name(self.id)
