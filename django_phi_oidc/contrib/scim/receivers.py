"""Forget that a client has disabled an account, once the account is active again."""

from collections.abc import Collection
from typing import Any

from django.conf import settings
from django.db.models import Model
from django.db.models.signals import post_save
from django.dispatch import receiver

from . import conf
from .models import SCIMUser


@receiver(
    post_save, sender=settings.AUTH_USER_MODEL, dispatch_uid="django_phi_oidc.contrib.scim.account"
)
def forget_disabling_client(
    *, instance: Model, created: bool, update_fields: Collection[str] | None = None, **kwargs: Any
) -> None:
    """After an administrator has activated the account, a later deactivation is not undone by a
    client.
    """
    is_written = update_fields is None or "is_active" in update_fields
    if conf.scim() and not created and is_written and getattr(instance, "is_active", False):
        SCIMUser.objects.filter(user=instance.pk, has_disabled_account=True).update(
            has_disabled_account=False
        )
