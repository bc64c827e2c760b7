"""A column of the audit tables with another type is reported everywhere, and nothing is read from it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from django.core import checks
from django.core.management import CommandError, call_command

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import triggers
from django_phi_oidc.audit.errors import ColumnsAltered, LogDamaged, SealingRefused
from django_phi_oidc.audit.log.findings import FindingKind, LogFinding, VerificationSummary
from django_phi_oidc.audit.log.reader import find_raw_event, read_checkpoints
from django_phi_oidc.audit.log.verification_schedule import verify_next_part
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.models import AuditEvent, AuditLeaf
from django_phi_oidc.audit.tasks import seal as seal_task
from tests.support.audit_log import KEY, NOW, PEM, events, seal_now, sealed
from tests.support.audit_tampering import CHECKPOINT, EVENT, LEAF, NODE, QUEUE, executed, sql
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
]
LATER = NOW + timedelta(hours=1)
ACTOR_INDEX = f"CREATE INDEX phi_oidc_audit_actor ON {EVENT} (actor, id) WHERE actor > ''"


@contextmanager
def lying_actor() -> Iterator[None]:
    """Show another actor than was sealed to each reader, except to one that casts it to text."""
    for statement in (
        "CREATE TYPE shown_actor AS ENUM ('7', '999')",
        "CREATE FUNCTION cast_actor(shown_actor) RETURNS text LANGUAGE sql AS $$SELECT '7'::text$$",
        "CREATE CAST (shown_actor AS text) WITH FUNCTION cast_actor(shown_actor)",
        "CREATE CAST (shown_actor AS varchar) WITH INOUT",
        "DROP INDEX phi_oidc_audit_actor",
        f"ALTER TABLE {EVENT} ALTER actor TYPE shown_actor USING '999'",
    ):
        sql(statement)
    try:
        yield
    finally:
        sql(f"ALTER TABLE {EVENT} ALTER actor TYPE varchar(256) USING '7'")
        sql("DROP TYPE shown_actor CASCADE")
        sql(ACTOR_INDEX)


def find() -> list[LogFinding]:
    return list(verify_log(keys=[KEY.public_key()], now=LATER, summary=VerificationSummary()))


def test_q1_type_whose_cast_to_text_lies_is_reported() -> None:
    (id_,) = sealed(1)
    assert find() == []
    with lying_actor():
        assert AuditEvent.objects.get(id=id_).actor == "999"
        altered, unread = find()
    assert (altered.kind, altered.is_fault) == (FindingKind.PROTECTION_ALTERED, True)
    assert altered.text == (f"the column actor of {EVENT} has the type shown_actor, and not character varying(256).")
    assert unread.kind is FindingKind.PROTECTION_ALTERED
    assert unread.text.startswith("The log was not read: the column actor of")
    assert find() == []


ALTERED_TYPES = {
    "char, which pads": (f"{EVENT} ALTER reason", "char(256)", "varchar(256)"),
    "a longer text": (f"{EVENT} ALTER session", "varchar(257)", "varchar(256)"),
    "the number of a version": (f"{EVENT} ALTER v", "integer", "smallint"),
    "the number of a leaf": (f"{LEAF} ALTER leaf_index", "integer", "bigint"),
    "the hash of a leaf": (
        f"{LEAF} ALTER leaf_hash",
        "text USING encode(leaf_hash, 'hex')",
        "bytea USING decode(leaf_hash, 'hex')",
    ),
    "the level of a node": (f"{NODE} ALTER level", "bigint", "smallint"),
    "the size of a checkpoint": (f"{CHECKPOINT} ALTER tree_size", "numeric", "bigint"),
    "the note of a checkpoint": (f"{CHECKPOINT} ALTER note", "varchar", "text"),
    "the id in the queue": (f"{QUEUE} ALTER event_id", "varchar(36)", "uuid USING event_id::uuid"),
}


@pytest.mark.parametrize(("column", "altered", "migrated"), ALTERED_TYPES.values(), ids=ALTERED_TYPES)
def test_q1_any_other_type_is_reported(column: str, altered: str, migrated: str) -> None:
    sealed(300)
    table, _, name = column.split()
    with executed(f"ALTER TABLE {column} TYPE {altered}", f"ALTER TABLE {column} TYPE {migrated}"):
        texts = [finding.text for finding in find()]
        assert any(text.startswith(f"the column {name} of {table} has the type ") for text in texts), texts
        assert texts[-1].startswith("The log was not read: the column")
    assert find() == []


def test_q1_domain_and_columns_that_are_missing_or_added_are_reported() -> None:
    sealed(1)
    sql("CREATE DOMAIN reason_text AS varchar(256)")
    with executed(
        f"ALTER TABLE {EVENT} ALTER reason TYPE reason_text, ADD note text",
        f"ALTER TABLE {EVENT} ALTER reason TYPE varchar(256), DROP note",
    ):
        assert [text for text in triggers.list_deviations() if "column" in text] == [
            f"the column reason of {EVENT} has the type reason_text, and not character varying(256)",
            f"{EVENT} has the column note",
        ]
    sql("DROP DOMAIN reason_text")
    with executed(f"ALTER TABLE {QUEUE} RENAME refused TO gone", f"ALTER TABLE {QUEUE} RENAME gone TO refused"):
        assert f"the column refused of {QUEUE} is missing" in triggers.list_deviations()
    assert [text for text in triggers.list_deviations() if "column" in text] == []


def pad_reason() -> Any:
    return executed(
        f"ALTER TABLE {EVENT} ALTER reason TYPE char(256)", f"ALTER TABLE {EVENT} ALTER reason TYPE varchar(256)"
    )


def test_q1_transaction_that_reads_refuses_the_column() -> None:
    """An owner who alters a column only while the log is read is not seen by an earlier look at the catalogue."""
    (id_,) = sealed(1)
    events(1, at=LATER)
    assert find_raw_event(id_).leaf_index == 0
    with pad_reason():
        with pytest.raises(ColumnsAltered, match="the column reason of"):
            find_raw_event(id_)
        with pytest.raises(LogDamaged):
            read_checkpoints(0, limit=1)
        with pytest.raises(SealingRefused, match="damaged"):
            seal_now(at=LATER)
        assert AuditLeaf.objects.count() == 1
    assert seal_now(at=LATER).event_count == 1


def report_by_check() -> list[str]:
    messages = checks.run_checks(databases=["phi_audit"], include_deployment_checks=True)
    return [message.msg for message in messages if message.id == "django_phi_oidc.E040" and "column" in message.msg]


def report_by_task() -> list[str]:
    # The task fails, after the alert.
    with clock.override_clock(lambda: NOW), suppress(ColumnsAltered):
        seal_task()
    alerts = [json.loads(event.detail) for event in AuditEvent.objects.filter(action="alert.raised")]
    return [alert["rule"] for alert in alerts if alert["rule"] == "protection_altered"]


def report_by_schedule() -> list[str]:
    summary = verify_next_part(KEY, now=LATER)
    kinds = json.loads(AuditEvent.objects.filter(action="audit.verified").last().detail)["kinds"]
    return kinds if summary.fault_count else []


@pytest.mark.parametrize("report", [report_by_check, report_by_task])
def test_q1_check_and_task_report_the_column(report: Callable[[], list[str]]) -> None:
    before = report()
    with pad_reason():
        assert len(report()) == 1
    assert before == []


def test_q1_scheduled_verification_and_command_report_the_column(
    settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})
    sealed(1)
    with pad_reason():
        assert report_by_schedule() == ["protection_altered"]
        for options in ([], ["--full"], ["--sample", "1"]):
            with pytest.raises(CommandError):
                call_command("phi_oidc", "audit", "verify", *options)
            lines = capsys.readouterr().out.splitlines()
            assert [line.split(":")[0] for line in lines[:-1]].count("protection_altered") >= 1, lines
