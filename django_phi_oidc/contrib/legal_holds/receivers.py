"""Refuse the deletion of active holds by the ORM. A trigger covers SQL for holds without an end."""

from typing import Any

from django.db.models.signals import pre_delete
from django.dispatch import receiver

from ..._internal import clock
from ...errors import HeldForLegalReasons
from .legal_holds import list_active_holds
from .models import LegalHold


@receiver(pre_delete, sender=LegalHold, dispatch_uid="django_phi_oidc.contrib.legal_holds")
def refuse_deletion_of_active_hold(*, instance: LegalHold, using: str, **kwargs: Any) -> None:
    """Only a release updates the claims of the person; without it they would stay held.

    Raises: HeldForLegalReasons, and then the whole deletion is rolled back.
    """
    if (
        list_active_holds(now=clock.now())
        .using(using)
        .filter(pk=instance.pk, subject__isnull=False)
        .exists()
    ):
        raise HeldForLegalReasons
