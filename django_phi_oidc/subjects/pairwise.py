"""Pairwise identifiers of users for other systems, which those systems cannot correlate. Spec: OIDC
Core 8.1.
"""

import re

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser

from ..crypto import keyring
from ..crypto.conf import PAIRWISE_KEY_RING
from .identifiers import compute_pairwise_value
from .models import PairwiseIdentifier

SECTOR_PATTERN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,253}[a-z0-9])?")
"""A host name in lower case (Core 8.1): another spelling would be another sector."""


def get_pairwise_id(user: AbstractBaseUser, sector: str) -> str:
    """Return the user's identifier in that sector: 64 hexadecimal digits that never change, by one
    SELECT.

    sector: the host name of the system that receives it. At first use it is computed with the
    newest pairwise key and stored, so later keys do not change it, and concurrent first uses get
    the same one. It is deleted with the user. If a primary key is reused, its new user gets the
    previous user's identifier.
    Raises: ValueError for an invalid sector or an unsaved user; at first use, KeyMissing. Spec:
    OIDC Core 8.1.
    """
    if not SECTOR_PATTERN.fullmatch(sector):
        raise ValueError("A sector is a host name in lower case, of 255 characters at most.")
    if user.pk is None:
        raise ValueError("A user that is not saved has no identifier.")
    identifier = PairwiseIdentifier.objects.filter(user=user.pk, sector=sector).first()
    if identifier is None:
        key = keyring.get_keys(PAIRWISE_KEY_RING)[0]
        label = get_user_model()._meta.label_lower
        value = compute_pairwise_value(
            key.material, sector=sector, user_model_label=label, pk=str(user.pk)
        )
        defaults = {"value": value}
        identifier, _ = PairwiseIdentifier.objects.get_or_create(
            user_id=user.pk, sector=sector, defaults=defaults
        )
    return identifier.value
