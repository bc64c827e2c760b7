"""Which database holds which audit table."""

from typing import Any

from django.db import DEFAULT_DB_ALIAS, models

AUDIT_ALIAS = "phi_audit"
_APP = "django_phi_oidc"
_EVENT = "auditevent"
_OUTBOX = "auditoutbox"


class AuditRouter:
    """Events are read and written on `phi_audit`, which holds nothing else; the outbox lives beside the changes.

    The events' table may also be made on `default`: where both aliases are one database, the second finds its
    migrations recorded by the first. Put this router first in DATABASE_ROUTERS.
    """

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return _home(model)

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return _home(model)

    def allow_relation(self, obj1: models.Model, obj2: models.Model, **hints: Any) -> bool | None:
        return False if _is_audit(type(obj1)) or _is_audit(type(obj2)) else None

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        is_event = app_label == _APP and model_name is not None and model_name.lower() == _EVENT
        if db == AUDIT_ALIAS:
            return is_event
        return db == DEFAULT_DB_ALIAS if is_event else None


def _home(model: type[models.Model]) -> str | None:
    if not _is_audit(model):
        return None
    return AUDIT_ALIAS if model._meta.model_name == _EVENT else DEFAULT_DB_ALIAS


def _is_audit(model: type[models.Model]) -> bool:
    return model._meta.app_label == _APP and model._meta.model_name in (_EVENT, _OUTBOX)
