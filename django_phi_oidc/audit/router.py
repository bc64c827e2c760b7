"""The database router of the audit log."""

from functools import cache
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, models

from ..project_settings import AUDIT_ALIAS as AUDIT_ALIAS  # noqa: PLC0414 -- read here by the rest of the package

_APP_LABEL = "phi_oidc_audit"


class AuditRouter:
    """Routes each `PortalTable` to `default`, and all other models of the audit log to `phi_audit`,
    which has no other tables.

    On PostgreSQL the tables of the audit database are also created on `default`. Both aliases may
    be one database, even with different hosts or ports, and then the second alias finds the
    migrations already recorded by the first. On SQLite two aliases of one file are an error (E019),
    so nothing is created a second time.
    Put this router first in DATABASE_ROUTERS.
    """

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return _find_alias(model)

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return _find_alias(model)

    def allow_relation(self, obj1: models.Model, obj2: models.Model, **hints: Any) -> bool | None:
        if _find_alias(type(obj1)) or _find_alias(type(obj2)):
            return False
        return None

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **hints: Any
    ) -> bool | None:
        is_trail = (
            app_label == _APP_LABEL
            and model_name is not None
            and not _is_portal_table(model_name.lower())
        )
        if db == AUDIT_ALIAS:
            return is_trail

        if is_trail:
            return db == DEFAULT_DB_ALIAS and not _has_separate_file()
        return None


def _find_alias(model: type[models.Model]) -> str | None:
    if model._meta.app_label != _APP_LABEL:
        return None
    if _is_portal_table(str(model._meta.model_name)):
        return DEFAULT_DB_ALIAS
    return AUDIT_ALIAS


@cache
def _is_portal_table(model_name: str) -> bool:
    """Return whether a model of the audit log is a `PortalTable`.

    The class is looked up by name, because the models in a migration do not inherit `PortalTable`.
    """
    try:
        model = apps.get_model(_APP_LABEL, model_name)
    except LookupError:
        return False
    return getattr(model, "in_portal_database", False)


def _has_separate_file() -> bool:
    """Return whether `default` is a file of SQLite, and the audit log is in another one."""
    return AUDIT_ALIAS in connections and connections[DEFAULT_DB_ALIAS].vendor == "sqlite"
