"""Who a person is to another system: an identifier that no other system can join with its own. Spec: OIDC Core 8.1."""

import re

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser

from .. import conf
from ..crypto import keyring
from .identifiers import compute_pairwise_value
from .models import PairwiseIdentifier

SECTOR_PATTERN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,253}[a-z0-9])?")
"""A host name in lower case, as Core 8.1 has it: in two spellings it would be two sectors."""


def get_pairwise_id(user: AbstractBaseUser, sector: str) -> str:
    """Return user's identifier in that sector: 64 hexadecimal digits, the same for ever, at one SELECT.

    sector: the host name of the system that gets it. The newest pairwise key makes it at first use, and it is stored:
    no later key changes it, and of several first uses at once all get the same one. It goes with the user. A primary
    key that is given to somebody else afterwards gives them the former's identifier as well.
    Raises: ValueError for a sector that is no such name and a user that is not saved; at first use, KeyMissing.
    Spec: OIDC Core 8.1.
    """
    if not SECTOR_PATTERN.fullmatch(sector):
        raise ValueError("A sector is a host name in lower case, of 255 characters at most.")
    if user.pk is None:
        raise ValueError("A user that is not saved has no identifier.")

    identifiers = PairwiseIdentifier.objects
    found = identifiers.filter(user=user.pk, sector=sector).first()
    if found is None:
        key = keyring.get_keys(conf.PAIRWISE_KEY_RING)[0]
        value = compute_pairwise_value(
            key.material, sector=sector, user_model_label=get_user_model()._meta.label_lower, pk=str(user.pk)
        )
        found, _ = identifiers.get_or_create(user_id=user.pk, sector=sector, defaults={"value": value})
    return found.value
