"""Exports of events: complete and valid in each format, in constant memory, and marked if incomplete."""

import csv
import io
import json
import re
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc import schedule
from django_phi_oidc.audit.events import parse_event
from django_phi_oidc.audit.search import EventFilters, RowUnreadable, has_more_events_than
from django_phi_oidc.contrib.audit_exports import conf as audit_exports_conf
from django_phi_oidc.contrib.audit_exports import event_export
from django_phi_oidc.contrib.audit_exports.trail_jobs import MAX_STREAMED_EVENTS
from tests.support.audit_log import NOW, events, sealed
from tests.support.audit_tampering import EVENT, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def export(export_format: str, filters: EventFilters = EventFilters()) -> str:  # noqa: B008 -- frozen
    return b"".join(lines for _, lines in event_export.export_events(filters, export_format, hostname="here")).decode()


def test_jsonl_has_each_sealed_event_oldest_first() -> None:
    ids = sealed(1203)
    parsed = [parse_event(line).event for line in export("jsonl").splitlines()]
    assert [event.id for event in parsed] == ids
    only = export("jsonl", EventFilters(subject="subject 1", since=NOW + timedelta(milliseconds=2)))
    assert {parse_event(line).event.subject for line in only.splitlines()} == {"subject 1"}
    assert len(only.splitlines()) == 400


def test_csv_contains_no_formula() -> None:
    sealed(1, reason="=HYPERLINK(1)", resource="+1;=2", detail={"claim": 'a "b", c'})
    (row,) = csv.DictReader(io.StringIO(export("csv")))
    assert (row["reason"], row["resource"]) == ("'=HYPERLINK(1)", "'+1;'=2")
    assert (row["occurred_at"], json.loads(row["detail"])) == ("2026-11-24T16:05:09.123456Z", {"claim": 'a "b", c'})
    assert next(iter(row)) == "id"
    assert len(row["mac"]) == 64


def test_fhir_has_the_leaf_index_of_sealed_events_only() -> None:
    sealed(2)
    events(1, at=NOW + timedelta(hours=1))
    resources = [json.loads(line) for line in export("fhir").splitlines()]
    assert {resource["resourceType"] for resource in resources} == {"AuditEvent"}
    details = [
        {d["type"]: d["valueString"] for e in resource["entity"] for d in e.get("detail", ())} for resource in resources
    ]
    assert [detail.get("leaf_index") for detail in details] == ["0", "1", None]


@pytest.mark.parametrize("form", event_export.CONTENT_TYPES)
@pytest.mark.parametrize("column", ["detail", "occurred_at"])
def test_unreadable_row_ends_every_export(form: str, column: str) -> None:
    ids = sealed(3)
    assert ids[2].hex in export(form).replace("-", "")
    with without_triggers():
        value = "'no json'" if column == "detail" else "'infinity'"
        sql(f"UPDATE {EVENT} SET {column} = {value} WHERE id = %s", ids[1])
    with pytest.raises(RowUnreadable):
        export(form)


def test_incomplete_export_ends_with_a_line_that_is_no_event() -> None:
    with pytest.raises(ValueError, match="Not an event"):
        parse_event(event_export.incomplete_marker("jsonl", "row_unreadable").decode().strip())
    assert json.loads(event_export.incomplete_marker("fhir", "row_unreadable"))["resourceType"] == "OperationOutcome"
    (row,) = csv.reader(io.StringIO(event_export.incomplete_marker("csv", "row_unreadable").decode()))
    assert row == ["INCOMPLETE: row_unreadable"]


def test_documented_line_and_settings_match_the_code(settings: Any) -> None:
    page = (Path(__file__).parents[4] / "docs" / "how-to" / "read-the-audit-log.md").read_text()
    blocks = dict(re.findall(r"<!-- tested(?:: | by: \S+/)(\w+)(?:\.py)? -->\n```\w+\n(.*?)```", page, re.DOTALL))
    assert blocks.pop("incomplete").encode() == event_export.incomplete_marker("jsonl", "row_unreadable")
    shown: dict[str, Any] = {}
    exec("\n".join(blocks.values()), shown)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **shown["PHI_OIDC"])
    assert audit_exports_conf.export_folder() == Path("/var/lib/portal/exports")
    assert set(shown["CELERY_TASK_ROUTES"]) <= set(schedule.beat_schedule())
    assert f"{MAX_STREAMED_EVENTS:,} events" in page


def test_memory_does_not_grow_with_the_export() -> None:
    for number in range(8):
        events(1000, at=NOW + timedelta(hours=number))

    def peak(hours: int) -> int:
        tracemalloc.start()
        count = sum(
            n
            for n, _ in event_export.export_events(
                EventFilters(until=NOW + timedelta(hours=hours)), "fhir", hostname="here"
            )
        )
        assert count == 1000 * hours
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)  # What is loaded once.
    assert peak(8) < 1.5 * peak(2)


def test_limit_check_counts_up_to_the_limit_only() -> None:
    session = "01990000-0000-7000-8000-000000000001"
    sealed(5, subject=session)
    assert has_more_events_than(EventFilters(), 4)
    assert not has_more_events_than(EventFilters(), 5)
    assert not has_more_events_than(EventFilters(subject="another"), 0)
    assert has_more_events_than(EventFilters(search=session), 4)
    assert not has_more_events_than(EventFilters(search=session), 5)
    assert not has_more_events_than(
        EventFilters(since=datetime(2030, 1, 1, tzinfo=UTC), until=datetime(2029, 1, 1, tzinfo=UTC)), 0
    )
