"""The database of each audit table."""

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model

from django_phi_oidc.audit.models import (
    AuditCheckpoint,
    AuditEvent,
    AuditLeaf,
    AuditNode,
    AuditOutbox,
    AuditUnsealed,
    AuditWitness,
)
from django_phi_oidc.audit.router import AuditRouter
from django_phi_oidc.replay.models import UsedIdentifier

ROUTER = AuditRouter()


def test_audit_database_has_only_the_audit_tables() -> None:
    allowed = [
        model
        for model in apps.get_models()
        if ROUTER.allow_migrate("phi_audit", model._meta.app_label, model._meta.model_name)
    ]
    assert allowed == [AuditEvent, AuditUnsealed, AuditLeaf, AuditNode, AuditCheckpoint]


@pytest.mark.parametrize(
    ("db", "app_label", "model_name", "allowed"),
    [
        ("default", "phi_oidc_audit", "auditevent", True),
        ("phi_audit", "phi_oidc_audit", "AuditEvent", True),
        ("other", "phi_oidc_audit", "auditevent", False),
        ("phi_audit", "phi_oidc_audit", None, False),
        ("phi_audit", "hospital", "auditevent", False),
        ("phi_audit", "auth", "user", False),
        ("default", "phi_oidc_audit", "auditoutbox", None),
        ("default", "auth", "user", None),
        ("other", "auth", None, None),
    ],
)
def test_allow_migrate_by_database_and_model(
    db: str, app_label: str, model_name: str | None, allowed: bool | None
) -> None:
    assert ROUTER.allow_migrate(db, app_label, model_name) is allowed


def test_events_use_the_audit_database_and_the_outbox_default() -> None:
    assert (ROUTER.db_for_read(AuditEvent), ROUTER.db_for_write(AuditEvent)) == ("phi_audit", "phi_audit")
    assert (ROUTER.db_for_read(AuditOutbox), ROUTER.db_for_write(AuditOutbox)) == ("default", "default")
    assert (ROUTER.db_for_read(AuditLeaf), ROUTER.db_for_write(AuditWitness)) == ("phi_audit", "default")
    assert (ROUTER.db_for_read(UsedIdentifier), ROUTER.db_for_write(get_user_model())) == (None, None)


def test_relations_to_events_are_refused() -> None:
    user = get_user_model()()
    assert ROUTER.allow_relation(user, AuditEvent()) is False
    assert ROUTER.allow_relation(AuditOutbox(), user) is False
    assert ROUTER.allow_relation(user, user) is None
