"""P1: every reader of the log gets past events with hostile contents that the sealer seals."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc.audit.admin.event_page import build_event_context
from django_phi_oidc.audit.admin.event_table import build_event_table, find_people_of_events
from django_phi_oidc.audit.events import Action, AuthenticatedEvent, Event, Origin, compute_mac
from django_phi_oidc.audit.filters import EventFilters
from django_phi_oidc.audit.formats import item_to_line
from django_phi_oidc.audit.formats.items import LogFormat, LogItem
from django_phi_oidc.audit.log.archive import verify_archive, write_archive
from django_phi_oidc.audit.log.findings import VerificationSummary
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.models import AuditEvent, AuditLeaf
from django_phi_oidc.audit.storage import insert_events
from django_phi_oidc.contrib.audit_exports.event_export import FILE_EXTENSIONS, export_events
from django_phi_oidc.contrib.individual_rights.accounting import create_accounting
from django_phi_oidc.contrib.monitoring.engine import evaluate_batch
from django_phi_oidc.contrib.monitoring.models import WatchCursor
from django_phi_oidc.contrib.monitoring.rules import get_builtin_rules
from django_phi_oidc.contrib.officer_admin.hourly_counts import Series, update_counts
from django_phi_oidc.contrib.officer_admin.models import HourlyCount
from django_phi_oidc.contrib.siem.delivery import deliver
from django_phi_oidc.contrib.siem.http_protocol import SendResult
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.crypto import keyring
from tests.support.audit_log import KEY, NOW, seal_now
from tests.support.hostile_events import FIRST, create_hostile_events

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
COUNT = 180


class FormattingSink:
    """Formats each item as a sink does, and accepts it."""

    def __init__(self, log_format: LogFormat) -> None:
        self.log_format = log_format
        self.lines: list[str] = []

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        self.lines += [item_to_line(item, self.log_format, hostname="portal") for item in items]
        return SendResult(accepted=len(items))


def insert_signed(events: Iterable[Event]) -> None:
    key = keyring.get_keys("audit_mac")[0]
    insert_events([AuthenticatedEvent(event, compute_mac(event, key.material)) for event in events])


def create_hostile(count: int, *, seed: int, since: datetime = FIRST) -> list[Event]:
    key = keyring.get_keys("audit_mac")[0]
    return list(create_hostile_events(count, seed=seed, since=since, until=NOW, mac_key=key.id))


@pytest.fixture
def tree_size() -> int:
    """Return the size of a sealed log of hostile events."""
    return seal_hostile(COUNT, seed=2)


def seal_hostile(count: int, *, seed: int) -> int:
    insert_signed(create_hostile(count, seed=seed))
    result = seal_now(at=NOW)
    assert (result.event_count, result.refused_count) == (count, 0)
    return AuditLeaf.objects.count()


def test_p1_anomaly_rules_evaluate_all(tree_size: int) -> None:
    while evaluate_batch(get_builtin_rules(), now=NOW, limit=37) is not None:
        pass
    assert WatchCursor.objects.get().tree_size == tree_size


@pytest.mark.parametrize("log_format", ["json", "ocsf", "cef", "fhir"])
def test_p1_sink_gets_all(log_format: LogFormat, tree_size: int) -> None:
    sink = FormattingSink(log_format)
    result = deliver("siem", sink, clock=lambda: NOW, seconds=60)
    assert (result.fault, result.is_caught_up) == ("", True)
    assert SinkCursor.objects.get().tree_size == tree_size
    assert len(sink.lines) == tree_size + 1, "and the checkpoint"


def test_p1_counts_of_the_overview_include_all() -> None:
    recent = create_hostile(COUNT, seed=5, since=NOW - timedelta(hours=5))
    insert_signed(recent)
    update_counts(now=NOW)
    counts = HourlyCount.objects.filter(series=Series.REFUSALS)
    assert sum(row.count for row in counts) == len([event for event in recent if event.outcome == "failure"]) > 0


def test_p1_admin_shows_all(tree_size: int) -> None:
    shown = list(AuditEvent.objects.all())
    people = find_people_of_events(shown)
    rows = build_event_table(shown, people)
    assert len(rows) == tree_size
    for event, row in zip(shown, rows, strict=True):
        assert row.microseconds
        assert build_event_context(event)["title"]


def test_p1_exports_have_all(tree_size: int) -> None:
    for export_format in FILE_EXTENSIONS:
        batches = list(export_events(EventFilters(), export_format, hostname="portal"))
        assert sum(count for count, _ in batches) == tree_size
        if export_format != "csv":
            lines = b"".join(lines for _, lines in batches).splitlines()
            assert all(json.loads(line) for line in lines if line)


def test_p1_accounting_of_a_person_has_all_disclosures() -> None:
    user = get_user_model().objects.create(username="patient")
    disclosures = []
    for event in create_hostile(COUNT, seed=3):
        if event.action == Action.ACCESS_GRANTED:
            disclosures.append(event._replace(resource=f"user/{user.pk}", outcome="success"))
    insert_signed(disclosures)
    accounting = create_accounting(
        user, since=datetime(1970, 1, 1, tzinfo=UTC), include_own=True, origin=Origin(), now=NOW
    )
    assert {item.id for item in accounting.list_all()} == {event.id for event in disclosures} != set()


def test_p1_verification_and_archive_have_all(tree_size: int, tmp_path: Path) -> None:
    summary = VerificationSummary()
    assert list(verify_log(keys=[KEY.public_key()], now=NOW, summary=summary)) == []
    assert (summary.tree_size, summary.events) == (tree_size, tree_size)
    path = tmp_path / "archive"
    write_archive(path, first_leaf_index=0, tree_size=tree_size, progress=lambda done, count: None)
    assert verify_archive(path, [KEY.public_key()]).tree_size == tree_size
