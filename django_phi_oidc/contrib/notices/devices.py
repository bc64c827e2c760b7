"""Browsers that a user has signed in with, by a random id in a cookie, to notify the user of a new
one.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from ..._internal.sql import delete_in_batches
from .models import KnownDevice

MAX_DEVICES = 20
"""Per user: the least recently used ones are forgotten."""
DEVICE_LIFETIME = timedelta(days=400)
"""After the last use. Browsers keep no cookie for longer."""


def register_device(user: Any, device: str, *, now: datetime) -> bool:
    """Record a sign-in of user with the browser that has this random id, and return whether the
    browser is new.

    One UPDATE for a known browser.
    """
    digest = hashlib.sha256(f"{user.pk}:{device}".encode()).hexdigest()
    devices = KnownDevice.objects.filter(user=user.pk)
    if devices.filter(digest=digest).update(last_used_at=now):
        return False
    row = KnownDevice(user_id=user.pk, digest=digest, first_used_at=now, last_used_at=now)
    # A concurrent sign-in with the same browser may have inserted it.
    KnownDevice.objects.bulk_create([row], ignore_conflicts=True)
    surplus = devices.order_by("-last_used_at", "-pk").values_list("pk", flat=True)[MAX_DEVICES:]
    KnownDevice.objects.filter(pk__in=list(surplus)).delete()
    return True


def delete_unused_devices(*, now: datetime) -> int:
    """Forget the browsers that were not used for DEVICE_LIFETIME, and return their number."""
    return delete_in_batches(KnownDevice.objects.filter(last_used_at__lt=now - DEVICE_LIFETIME))
