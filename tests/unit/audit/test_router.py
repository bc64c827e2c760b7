"""The database of each audit table."""

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connections

from django_phi_oidc.audit.models import (
    AuditCheckpoint,
    AuditEvent,
    AuditLeaf,
    AuditNode,
    AuditOutbox,
    AuditUnsealed,
    AuditWitness,
)
from django_phi_oidc.audit.portal_tables import PortalTable
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


@pytest.mark.parametrize("vendor", ["postgresql", "sqlite"])
def test_tables_of_the_audit_database_are_created_a_second_time_only_on_postgresql(
    vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections["default"], "vendor", vendor)
    assert ROUTER.allow_migrate("default", "phi_oidc_audit", "auditevent") is (vendor == "postgresql")
    assert ROUTER.allow_migrate("default", "phi_oidc_audit", "auditoutbox") is None


@pytest.mark.sqlite
@pytest.mark.django_db(databases=["default", "phi_audit"])
def test_file_of_the_portal_has_no_tables_of_the_audit_database() -> None:
    tables = {alias: set(connections[alias].introspection.table_names()) for alias in ("default", "phi_audit")}
    assert AuditOutbox._meta.db_table in tables["default"] - tables["phi_audit"]
    assert AuditEvent._meta.db_table in tables["phi_audit"]
    assert AuditEvent._meta.db_table not in tables["default"]


def test_models_of_the_audit_log_are_in_the_audit_database_unless_they_are_marked() -> None:
    models = apps.get_app_config("phi_oidc_audit").get_models()
    marked = {model for model in models if issubclass(model, PortalTable)}
    assert {AuditOutbox, AuditWitness} < marked
    assert all(ROUTER.db_for_write(model) == "default" for model in marked)
    assert not {AuditEvent, AuditUnsealed, AuditLeaf, AuditNode, AuditCheckpoint} & marked


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
