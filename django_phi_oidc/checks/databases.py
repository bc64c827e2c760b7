"""System checks of accounts, subjects and claims in the database."""

from collections.abc import Sequence
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
from ..crypto import keyring
from ..errors import KeyMissing
from ..extensions import claim_key_sources
from ..subjects.models import SubjectDigest


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

    W048: no app supplies the keys of claims.
    W080: the permission of a category of claims does not exist. This is a warning, because
    `migrate` creates it.
    """
    if "default" in (databases or ()):
        yield from _check_subject_digest_keys()
        yield from _check_claim_keys()
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


def _check_claim_keys() -> Messages:
    if claim_key_sources:
        # The app has a check of its own.
        return
    try:
        if StoredClaim._meta.db_table not in connections["default"].introspection.table_names():
            return
        if StoredClaim.objects.exclude(bucket="").exists():
            text = "Claims are encrypted under retention keys, and no app supplies the keys."
            yield warning(48, text, "Install the app again. phi_oidc apps lists the apps.")
    except DatabaseError:
        # E018 reports it.
        return
