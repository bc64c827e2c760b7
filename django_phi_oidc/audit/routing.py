"""Which database holds which audit table."""

from typing import Any

from django.db import DEFAULT_DB_ALIAS, models

AUDIT_ALIAS = "phi_audit"
_APP = "django_phi_oidc"
TRAIL = frozenset({"auditevent", "auditunsealed", "auditleaf", "auditnode", "auditcheckpoint"})
"""The models, by Django's name for them, that the trail's database holds."""
_BESIDE_CHANGES = frozenset({"auditoutbox", "auditwitness", "refusalcount"})


class AuditRouter:
    """The trail is read and written on `phi_audit`, which holds nothing else; the outbox lives beside the changes.

    The trail's tables may also be made on `default`: where both aliases are one database, the second finds its
    migrations recorded by the first. Put this router first in DATABASE_ROUTERS.
    """

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return _home(model)

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return _home(model)

    def allow_relation(self, obj1: models.Model, obj2: models.Model, **hints: Any) -> bool | None:
        return False if _home(type(obj1)) or _home(type(obj2)) else None

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        is_trail = app_label == _APP and model_name is not None and model_name.lower() in TRAIL
        if db == AUDIT_ALIAS:
            return is_trail
        return db == DEFAULT_DB_ALIAS if is_trail else None


def _home(model: type[models.Model]) -> str | None:
    if model._meta.app_label != _APP:
        return None
    if model._meta.model_name in TRAIL:
        return AUDIT_ALIAS
    return DEFAULT_DB_ALIAS if model._meta.model_name in _BESIDE_CHANGES else None
