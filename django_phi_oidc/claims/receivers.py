"""Refuse deletions that would erase what a legal hold keeps.

The paths of this package check holds themselves. These receivers cover the ORM; triggers cover SQL
for holds without an end. After `migrate`, the permissions of the declared categories are created.
"""

from contextlib import suppress
from typing import Any

from django.apps import apps as global_apps
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_migrate, pre_delete
from django.dispatch import receiver

from .._internal import clock
from ..errors import HeldForLegalReasons
from .categories import create_category_permissions
from .models import StoredClaim


@receiver(pre_delete, sender=StoredClaim, dispatch_uid="django_phi_oidc.claims.held")
def refuse_deletion_of_held_claim(
    *, instance: StoredClaim, using: str, origin: Any = None, **kwargs: Any
) -> None:
    """Raises: HeldForLegalReasons, and then the whole deletion is rolled back. origin: what
    delete() was called on.

    The deletion of a subject or account checks the holds itself, when it has locked the subject and
    the sessions. Here, it would lock the claims before them, and deadlock with the end of a
    session.
    """
    if origin is not None and getattr(origin, "model", type(origin)) is not StoredClaim:
        return
    # Read again and locked: the hold may have been placed after the instance was read.
    row = (
        StoredClaim.objects.using(using)
        .select_for_update()
        .filter(pk=instance.pk)
        .only("held_until")
        .first()
    )
    if row is not None and row.held_until is not None and row.held_until > clock.now():
        raise HeldForLegalReasons


@receiver(post_migrate, dispatch_uid="django_phi_oidc.claims.categories")
def create_permissions_of_categories(
    *, sender: Any, using: str, apps: Any = global_apps, **kwargs: Any
) -> None:
    """apps: the models whose tables exist after this migration; after `migrate … zero` some are
    missing.
    """
    if sender.name != "django_phi_oidc":
        return
    # E002 reports invalid claims.
    with suppress(LookupError, ImproperlyConfigured):
        for name in (
            "auth.Permission",
            "contenttypes.ContentType",
            "django_phi_oidc.PairwiseSubject",
        ):
            apps.get_model(name)
        create_category_permissions(using=using)
