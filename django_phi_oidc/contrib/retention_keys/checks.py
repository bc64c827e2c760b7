"""System checks of the store of the retention keys."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.core.checks import Tags
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections

from ..._internal.check_messages import (
    DEFAULT_CONNECT_HINT,
    Messages,
    error,
    register_check,
    warning,
)
from ...claims.models import StoredClaim
from ...crypto.claim_keys import HOLD_PREFIX
from ...errors import KeyMissing
from ...options import SettingInvalid
from .key_destruction import list_keys_in_use
from .key_names import person_key_name
from .key_store import get_store, is_enabled

PERSON_KEY_SAMPLE_SIZE = 10


@register_check(Tags.security)
def check_key_store(**kwargs: Any) -> Messages:
    """E002: KEYS['retention'] is no store; E004: the store cannot be read."""
    try:
        if is_enabled():
            get_store().names()
    except SettingInvalid:
        # The check of the declarations reports it.
        return
    except ImproperlyConfigured as fault:
        yield error(2, str(fault))
    except KeyMissing as fault:
        yield error(4, str(fault), "Prepare an empty folder: manage.py phi_oidc keys generate")


@register_check(Tags.database)
def check_retention_keys(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """W048: retention keys of claims are missing in the store.

    This is a warning, because they are also missing after a backup was restored. It finds keys that
    were lost, and a folder or vault of another portal: its marker is right, and its keys are not.
    """
    if "default" not in (databases or ()):
        return
    try:
        if StoredClaim._meta.db_table not in connections["default"].introspection.table_names():
            return
        # In this order: a key that is created meanwhile is not missing.
        in_use = list_keys_in_use()
        if not in_use:
            return
        person_keys = _select_person_keys(in_use)
        store = get_store()
        missing = in_use.difference(store.names()) | {
            name for name in person_keys if store.get(name) is None
        }
        if missing:
            text = (
                f"KEYS['retention'] lacks {len(missing)} of "
                f"{len(in_use | person_keys)} keys that encrypt claims."
            )
            hint = (
                "If it is another folder or vault, correct that before "
                "the next sign-in creates other keys in it."
            )
            yield warning(48, text, hint)
    except (DatabaseError, KeyMissing) as fault:
        yield warning(
            48,
            f"The retention keys can't be checked: {type(fault).__name__}.",
            DEFAULT_CONNECT_HINT,
        )


def _select_person_keys(names_in_use: Iterable[str]) -> set[str]:
    """Return the names of a few keys of persons: there may be millions. Unlike those of days, they
    are random.
    """
    days = []
    for name in names_in_use:
        if not name.startswith(HOLD_PREFIX):
            days.append(name)
    if not days:
        return set()
    claims = StoredClaim.objects.filter(bucket=max(days)).values_list(
        "subject__retention_key_id", flat=True
    )
    return {person_key_name(key_id) for key_id in claims[:PERSON_KEY_SAMPLE_SIZE]}
