"""Which database holds which audit table."""

from typing import Any

from django.db import DEFAULT_DB_ALIAS, models

from ..project_settings import AUDIT_ALIAS as AUDIT_ALIAS  # noqa: PLC0414 -- read here by the rest of the package

_APP_LABEL = "phi_oidc_audit"
TRAIL_MODELS = frozenset(
    {"auditevent", "auditunsealed", "auditleaf", "auditnode", "auditcheckpoint"}
)
"""Model names of the tables in the audit database."""
_DEFAULT_DATABASE_MODELS = frozenset(
    {
        *("archivefile", "auditoutbox", "auditwitness", "cosignature", "logwitness"),
        *("recordedconfiguration", "refusalcount", "verificationrecord"),
    }
)


class AuditRouter:
    """Reads and writes audit tables on `phi_audit`, which has no other tables. The outbox is on
    `default`.

    Audit tables may also be created on `default`: if both aliases are one database, the second
    alias finds the migrations already recorded by the first. Put this router first in
    DATABASE_ROUTERS.
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
            and model_name.lower() in TRAIL_MODELS
        )
        if db == AUDIT_ALIAS:
            return is_trail

        if is_trail:
            return db == DEFAULT_DB_ALIAS
        return None


def _find_alias(model: type[models.Model]) -> str | None:
    if model._meta.app_label != _APP_LABEL:
        return None
    if model._meta.model_name in TRAIL_MODELS:
        return AUDIT_ALIAS

    if model._meta.model_name in _DEFAULT_DATABASE_MODELS:
        return DEFAULT_DB_ALIAS
    return None
