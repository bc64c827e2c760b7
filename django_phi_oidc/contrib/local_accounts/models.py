"""Networks from which the local accounts have signed in."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class KnownNetwork(models.Model):
    """A network from which an account of BREAK_GLASS_ACCOUNTS has signed in, with its password or
    at the provider.
    """

    network = models.CharField(max_length=64)
    """An IPv4 address or IPv6 /64."""
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    last_used_at = models.DateTimeField(db_index=True)

    class Meta:
        app_label = "phi_oidc_local_accounts"
        verbose_name = _("known network")
        verbose_name_plural = _("known networks")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["network", "user"], name="phi_oidc_known_network_unique"
            ),
        )

    def __str__(self) -> str:
        return str(self.pk)
