"""A change of the triggers, functions or persistence of the audit log is reported everywhere, and can be repaired."""

import importlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.overrides import override_global
from django_phi_oidc.audit import triggers
from django_phi_oidc.audit.log.findings import FindingKind, VerificationSummary
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.tasks import seal as seal_task
from django_phi_oidc.testing.runner import DROP_TRIGGER_STATEMENTS
from tests.support.audit_log import KEY, NOW, PEM, events
from tests.support.audit_tampering import EVENT, LEAF, QUEUE, executed, is_postgresql, sql
from tests.support.phi_oidc_settings import override_phi_oidc

VENDOR = connections["phi_audit"].vendor
OF_CONNECTION = pytest.mark.without_pooler("it sets an option of a connection")
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture(autouse=True)
def _as_migrated() -> Iterator[None]:
    """Create all triggers, as in a database that no test runner has changed, and expect them."""
    with override_global(vars(triggers), "_optional_operations", frozenset()):
        triggers.repair()
        try:
            yield
        finally:
            triggers.repair()
            for statement in DROP_TRIGGER_STATEMENTS[VENDOR]:
                sql(statement)


def test_e6_database_as_migrated_has_no_deviations() -> None:
    assert triggers.list_deviations() == []


def test_e6_triggers_of_the_migration_are_those_that_are_expected() -> None:
    for statement in triggers._drop_statements(VENDOR):
        sql(statement)
    assert len(triggers.list_deviations()) == 13
    migration = importlib.import_module("django_phi_oidc.audit.migrations.0001_initial")
    create_functions = [migration.CREATE_FUNCTION.replace("CREATE", "CREATE OR REPLACE")] if is_postgresql() else []
    queue = [text.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION") for text in migration.CREATE_QUEUE[VENDOR]]
    refusals = getattr(migration, f"create_refusals_{VENDOR}")
    for statement in (*create_functions, *queue, *(line for table in migration.NAMES for line in refusals(table))):
        sql(statement)
    assert triggers.list_deviations() == []


def no_event(body: str = "RETURN NULL") -> str:
    return f"CREATE OR REPLACE FUNCTION phi_oidc_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body}; END'"


ALTERATIONS_POSTGRESQL: dict[str, tuple[list[str], str]] = {
    "a trigger that was dropped": ([f"DROP TRIGGER phi_oidc_audit_refuse_update ON {EVENT}"], "is missing"),
    "the queue trigger that was dropped": ([f"DROP TRIGGER phi_oidc_audit_queue ON {EVENT}"], "is missing"),
    "triggers that a restore left enabled at origin only": (
        [f"ALTER TABLE {LEAF} DISABLE TRIGGER ALL", f"ALTER TABLE {LEAF} ENABLE TRIGGER ALL"],
        "is not ENABLE ALWAYS",
    ),
    "a disabled trigger": ([f"ALTER TABLE {EVENT} DISABLE TRIGGER phi_oidc_audit_queue"], "is not ENABLE ALWAYS"),
    "a function that refuses nothing": ([no_event()], "or its function was replaced"),
    "a trigger with a condition": (
        [
            f"CREATE OR REPLACE TRIGGER phi_oidc_audit_refuse_update BEFORE UPDATE ON {EVENT} FOR EACH ROW "
            "WHEN (false) EXECUTE FUNCTION phi_oidc_audit_refuse()",
            f"ALTER TABLE {EVENT} ENABLE ALWAYS TRIGGER phi_oidc_audit_refuse_update",
        ],
        "or its function was replaced",
    ),
    "a trigger for one column": (
        [
            f"CREATE OR REPLACE TRIGGER phi_oidc_audit_refuse_update BEFORE UPDATE OF v ON {EVENT} FOR EACH ROW "
            "EXECUTE FUNCTION phi_oidc_audit_refuse()",
            f"ALTER TABLE {EVENT} ENABLE ALWAYS TRIGGER phi_oidc_audit_refuse_update",
        ],
        "or its function was replaced",
    ),
    "a queue function of its caller": (["ALTER FUNCTION phi_oidc_audit_queue() SECURITY INVOKER"], "was replaced"),
    "a queue function with its own path": (
        ["ALTER FUNCTION phi_oidc_audit_queue() SET search_path = pg_temp"],
        "was replaced",
    ),
    "an unlogged table": ([f"ALTER TABLE {QUEUE} SET UNLOGGED"], f"{QUEUE} is UNLOGGED"),
    "row level security": ([f"ALTER TABLE {EVENT} ENABLE ROW LEVEL SECURITY"], "row level security"),
}
ALTERATIONS_SQLITE: dict[str, tuple[list[str], str]] = {
    "a trigger that was dropped": (["DROP TRIGGER phi_oidc_audit_refuse_update"], "is missing"),
    "the queue trigger that was dropped": (["DROP TRIGGER phi_oidc_audit_queue"], "is missing"),
    "a trigger that refuses nothing": (
        [
            "DROP TRIGGER phi_oidc_auditleaf_refuse_delete",
            f"CREATE TRIGGER phi_oidc_auditleaf_refuse_delete BEFORE DELETE ON {LEAF} BEGIN SELECT 1; END",
        ],
        "was replaced",
    ),
}


def check_altered_and_repaired(statements: list[str], text: str) -> None:
    for statement in statements:
        sql(statement)
    deviations = triggers.list_deviations()
    assert deviations
    assert all(text in deviation for deviation in deviations)
    triggers.repair()
    assert triggers.list_deviations() == []


@pytest.mark.postgresql
@pytest.mark.parametrize(("statements", "text"), ALTERATIONS_POSTGRESQL.values(), ids=ALTERATIONS_POSTGRESQL)
def test_e6_alteration_on_postgresql_is_found_and_repaired(statements: list[str], text: str) -> None:
    check_altered_and_repaired(statements, text)


@pytest.mark.sqlite
@pytest.mark.parametrize(("statements", "text"), ALTERATIONS_SQLITE.values(), ids=ALTERATIONS_SQLITE)
def test_e6_alteration_on_sqlite_is_found_and_repaired(statements: list[str], text: str) -> None:
    check_altered_and_repaired(statements, text)


@pytest.mark.parametrize("table", [EVENT, LEAF, QUEUE])
def test_e6_table_that_was_renamed_and_renamed_back_is_no_deviation(table: str) -> None:
    """SQLite then quotes the names in its triggers."""
    with executed(f"ALTER TABLE {table} RENAME TO away", f"ALTER TABLE away RENAME TO {table}"):
        pass
    assert triggers.list_deviations() == []


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("statement", "undo", "text"),
    [
        (
            f"CREATE RULE dropping AS ON INSERT TO {EVENT} DO INSTEAD NOTHING",
            f"DROP RULE dropping ON {EVENT}",
            f"{EVENT} has the rule dropping",
        ),
        (
            f"CREATE TRIGGER dropping BEFORE INSERT ON {QUEUE} FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            f"DROP TRIGGER dropping ON {QUEUE}",
            f"{QUEUE} has the trigger dropping",
        ),
        (
            f"ALTER TABLE {EVENT} ALTER reason TYPE char(256)",
            f"ALTER TABLE {EVENT} ALTER reason TYPE varchar(256)",
            f"the column reason of {EVENT} has the type character(256)",
        ),
        pytest.param(
            *("SET synchronous_commit = off", "RESET synchronous_commit", "synchronous_commit is off"),
            marks=OF_CONNECTION,
        ),
        pytest.param(
            *("SET search_path = public, pg_catalog", "RESET search_path", "search_path has public before pg_catalog"),
            marks=OF_CONNECTION,
        ),
    ],
    ids=["rule", "trigger", "column", "synchronous_commit", "search_path"],
)
def test_e6_foreign_rule_trigger_or_setting_is_found_and_stays(
    statement: str, undo: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with executed(statement, undo):
        (deviation,) = triggers.list_deviations()
        assert text in deviation
        with pytest.raises(CommandError, match="that are left"):
            call_command("phi_oidc", "audit", "repair")
        assert f"left: {deviation}" in capsys.readouterr().out
    assert triggers.list_deviations() == []


@pytest.mark.sqlite
def test_e6_foreign_trigger_on_sqlite_is_found_and_stays() -> None:
    statement = f"CREATE TRIGGER dropping BEFORE INSERT ON {EVENT} BEGIN SELECT RAISE(IGNORE); END"
    with executed(statement, "DROP TRIGGER dropping"):
        with pytest.raises(CommandError, match="that are left"):
            call_command("phi_oidc", "audit", "repair")
        assert triggers.list_deviations() == [f"{EVENT} has the trigger dropping, which can drop or change rows"]
    with executed("PRAGMA synchronous = OFF", "PRAGMA synchronous = NORMAL"):
        (deviation,) = triggers.list_deviations()
        assert "synchronous is OFF" in deviation


DROP_QUEUE = f"DROP TRIGGER phi_oidc_audit_queue{f' ON {EVENT}' if is_postgresql() else ''}"


def report_by_check() -> list[str]:
    messages = checks.run_checks(databases=["phi_audit"], include_deployment_checks=True)
    assert not [message for message in checks.run_checks(databases=["phi_audit"]) if "E040" in str(message.id)]
    return [message.msg for message in messages if message.id == "django_phi_oidc.E040"]


def report_by_verification() -> list[str]:
    findings = verify_log(keys=[KEY.public_key()], now=NOW, summary=VerificationSummary())
    return [finding.text for finding in findings if finding.kind is FindingKind.PROTECTION_ALTERED and finding.is_fault]


def report_by_task() -> list[str]:
    with clock.override_clock(lambda: NOW):
        seal_task()
    alerts = [json.loads(event.detail) for event in AuditEvent.objects.filter(action="alert.raised")]
    return [alert["rule"] for alert in alerts if alert["rule"] == "protection_altered"]


@pytest.mark.parametrize("report", [report_by_check, report_by_verification, report_by_task])
def test_e6_dropped_trigger_is_reported(report: Callable[[], list[str]]) -> None:
    assert report() == []
    sql(DROP_QUEUE)
    assert len(report()) == 1
    assert len(report()) == 1, "the task raises one alert an hour"


def test_e6_repair_command_restores_what_the_check_reports(capsys: pytest.CaptureFixture[str]) -> None:
    sql(DROP_QUEUE)
    assert len(report_by_check()) == 1
    call_command("phi_oidc", "audit", "repair")
    assert f"repaired: the trigger phi_oidc_audit_queue of {EVENT} is missing\n" in capsys.readouterr().out
    assert report_by_check() == []


@pytest.fixture
def _signing_key(settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})


@pytest.mark.usefixtures("_signing_key")
def test_e6_verify_fails_until_the_log_is_protected_again(capsys: pytest.CaptureFixture[str]) -> None:
    sql(DROP_QUEUE)
    with pytest.raises(CommandError, match="audit repair"):
        call_command("phi_oidc", "audit", "verify")
    assert "protection_altered: " in capsys.readouterr().out
    call_command("phi_oidc", "audit", "repair")
    call_command("phi_oidc", "audit", "verify")
    assert "no faults" in capsys.readouterr().out


def test_e9_event_that_was_written_without_the_queue_trigger_raises_an_alert() -> None:
    sql(DROP_QUEUE)
    events(1)
    triggers.repair()
    with clock.override_clock(lambda: NOW + timedelta(minutes=6)):
        seal_task()
    rules = [json.loads(event.detail)["rule"] for event in AuditEvent.objects.filter(action="alert.raised")]
    assert rules == ["event_unqueued"]


def test_e6_doctor_reports_a_log_that_is_not_protected(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS={})
    call_command("phi_oidc", "doctor")
    assert "0 failures" in capsys.readouterr().out
    sql(DROP_QUEUE)
    with pytest.raises(CommandError, match="1 failures"):
        call_command("phi_oidc", "doctor")
    assert "phi_oidc_audit_queue" in capsys.readouterr().out
