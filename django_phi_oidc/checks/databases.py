"""System checks of accounts, subjects and claims in the database."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Permission
from django.core.checks import Tags
from django.db import DatabaseError, connections

from .._internal.check_messages import (
    DEFAULT_CONNECT_HINT,
    Messages,
    error,
    in_settings,
    register_check,
    warning,
)
from .._internal.persistent_connections import list_leaking_aliases
from ..claims.categories import list_missing_categories
from ..claims.models import StoredClaim
from ..claims.retention import list_keys_in_use
from ..crypto import keyring, retention_keys
from ..errors import KeyMissing
from ..subjects.models import SubjectDigest

PERSON_KEY_SAMPLE_SIZE = 10


@register_check(Tags.security)
def check_asgi_connections(**kwargs: Any) -> Messages:
    """W043: under ASGI, each request would leave its connections open."""
    if not getattr(settings, "ASGI_APPLICATION", None):
        return
    for alias in list_leaking_aliases():
        text = (
            "Under ASGI, each request leaves its connection to "
            f"{alias!r} open, until the server has no more."
        )
        yield warning(43, text, in_settings(f'DATABASES["{alias}"]["CONN_MAX_AGE"] = 0'))


@register_check(Tags.database)
def check_stored_claims(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """E018: the key of each subject digest is configured.

    W048: retention keys of claims are missing in the store. This is a warning, because they are
    also missing after a backup was restored.
    W080: the permission of a category of claims does not exist. This is a warning, because
    `migrate` creates it.
    """
    if "default" in (databases or ()):
        yield from _check_subject_digest_keys()
        yield from _check_retention_keys()
        yield from _check_category_permissions()


def _check_category_permissions() -> Messages:
    try:
        if Permission._meta.db_table in connections["default"].introspection.table_names():
            for category in list_missing_categories(using="default"):
                text = (
                    f"There is no permission for the category {category!r}: "
                    "only superusers can reveal its claims."
                )
                yield warning(80, text, "Create it: manage.py migrate")
    except DatabaseError:
        # E018 reports it.
        return


def _check_subject_digest_keys() -> Messages:
    try:
        if SubjectDigest._meta.db_table not in connections["default"].introspection.table_names():
            return
        configured = [key.id for key in keyring.get_keys("subject")]
        orphaned = (
            SubjectDigest.objects.exclude(key_id__in=configured)
            .values_list("key_id", flat=True)
            .distinct()
        )
        for key_id in orphaned:
            hint = "Append that key, from a copy of your keys, to the list PHI_SUBJECT_KEYS."
            yield error(
                18, f"Subject digests were made with key {key_id}, which is not configured.", hint
            )
    except (DatabaseError, KeyMissing) as fault:
        yield error(
            18,
            f"The subject digests can't be checked: {type(fault).__name__}.",
            DEFAULT_CONNECT_HINT,
        )


def _check_retention_keys() -> Messages:
    """Find keys that were lost, and a folder or vault of another portal: its marker is right, and
    its keys are not.
    """
    try:
        if StoredClaim._meta.db_table not in connections["default"].introspection.table_names():
            return
        # In this order: a key that is created meanwhile is not missing.
        in_use = list_keys_in_use()
        if not in_use:
            return
        person_keys = _select_person_keys(in_use)
        store = retention_keys.get_store()
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
        if not name.startswith(retention_keys.HOLD_PREFIX):
            days.append(name)
    if not days:
        return set()
    claims = StoredClaim.objects.filter(bucket=max(days)).values_list(
        "subject__retention_key_id", flat=True
    )
    return {retention_keys.person_key_name(key_id) for key_id in claims[:PERSON_KEY_SAMPLE_SIZE]}
