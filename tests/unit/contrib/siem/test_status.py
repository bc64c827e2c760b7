"""The state of a sink, and the texts about its faults."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.contrib.siem.declaration import parse_sink
from django_phi_oidc.contrib.siem.delivery import STOPPING_FAULTS, deliver
from django_phi_oidc.contrib.siem.fault_texts import FAULT_TEXTS, get_fault_text
from django_phi_oidc.contrib.siem.http_protocol import SendResult
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.contrib.siem.status import SinkState, SinkStatus, list_sink_statuses
from django_phi_oidc.errors import Code
from tests.support.sealed_events import NOW, Clock, seal
from tests.unit.contrib.siem.test_delivery import Recorder

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SINKS = {"siem": parse_sink("siem", {"type": "file", "path": "/var/log/audit.jsonl", "lag_alert": 300})}
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def get_status(now: datetime) -> SinkStatus:
    (status,) = list_sink_statuses(SINKS, now=now)
    return status


def store_cursor(**fields: Any) -> None:
    SinkCursor.objects.update_or_create(name="siem", defaults={"due_at": NOW, **fields})


@pytest.mark.parametrize(
    ("fields", "seconds", "state"),
    [
        ({"tree_size": 3, "checkpoint_size": 3}, 60, SinkState.CAUGHT_UP),
        ({"tree_size": 3, "checkpoint_size": 3}, 121, SinkState.NO_WORKER),
        ({"tree_size": 3, "checkpoint_size": 3, "lease_until": NOW + 130 * SECOND}, 121, SinkState.CAUGHT_UP),
        ({"tree_size": 1}, 60, SinkState.BEHIND),
        ({"tree_size": 1, "due_at": NOW + 5 * MINUTE}, 300, SinkState.BEHIND),
        ({"tree_size": 1, "due_at": NOW + 5 * MINUTE}, 301, SinkState.LATE),
        ({"last_fault": "http_503"}, 60, SinkState.FAILING),
        ({"last_fault": "http_503"}, 121, SinkState.NO_WORKER),
        ({"last_fault": "http_503", "due_at": NOW + 60 * MINUTE}, 900, SinkState.FAILING),
        ({"last_fault": "log_forked"}, 60, SinkState.STOPPED),
        ({"last_fault": "log_forked"}, 900, SinkState.STOPPED),
    ],
)
def test_state_is_the_most_severe_one(fields: dict[str, Any], seconds: int, state: SinkState) -> None:
    seal(3)
    store_cursor(**fields)
    status = get_status(NOW + seconds * SECOND)
    assert status.state is state
    assert status.needs_action == (state not in {SinkState.CAUGHT_UP, SinkState.BEHIND})


@pytest.mark.parametrize(("seconds", "state"), [(119, SinkState.BEHIND), (121, SinkState.NO_WORKER)])
def test_sink_that_no_worker_has_seen_gets_no_row(seconds: int, state: SinkState) -> None:
    seal(2)
    status = get_status(NOW + seconds * SECOND)
    assert (status.state, status.missing_count, status.lag) == (state, 2, seconds * SECOND)
    assert not SinkCursor.objects.exists()


def test_sink_with_more_events_than_the_log_is_not_behind() -> None:
    seal(2)
    store_cursor(tree_size=5, checkpoint_size=5, last_fault="log_behind_sink")
    status = get_status(NOW + MINUTE)
    assert (status.missing_count, status.lag, status.state) == (-3, timedelta(0), SinkState.STOPPED)


def test_failure_lasts_since_the_first_failed_attempt(clock: Clock) -> None:
    seal(2)
    recorder = Recorder([SendResult(accepted=0, fault="http_503")] * 2)
    first = clock()
    for _ in range(2):
        deliver("siem", recorder, clock=clock, seconds=5)
        assert SinkCursor.objects.get().failing_since == first
        clock.go_on(hours=2)
    deliver("siem", recorder, clock=clock, seconds=5)
    assert SinkCursor.objects.get().failing_since is None


def test_healthy_sinks_need_two_queries() -> None:
    seal(3)
    sinks = {f"sink-{number}": SINKS["siem"] for number in range(5)}
    for name in sinks:
        SinkCursor.objects.create(name=name, due_at=NOW, tree_size=3, checkpoint_size=3)
    with (
        CaptureQueriesContext(connections["default"]) as default_queries,
        CaptureQueriesContext(connections[AUDIT_ALIAS]) as audit_queries,
    ):
        assert len(list_sink_statuses(sinks, now=NOW)) == 5
    assert (len(default_queries), len(audit_queries)) == (1, 1)
    with CaptureQueriesContext(connections["default"]) as default_queries:
        assert list_sink_statuses({}, now=NOW) == []
    assert len(default_queries) == 0


def test_each_fault_has_a_text() -> None:
    transport = {str(code) for code in Code if str(code).startswith("transport_")}
    # Sinks use only declared URLs, and accept any encoding.
    assert FAULT_TEXTS.keys() >= STOPPING_FAULTS | (transport - {"transport_not_https", "transport_encoding"})
    assert len({str(text.meaning) for text in FAULT_TEXTS.values()}) == len(FAULT_TEXTS)


@pytest.mark.parametrize(
    ("fault", "meaning", "remedy"),
    [
        ("http_401", "The collector answered with the HTTP status 401.", "token"),
        ("http_503", "The collector answered with the HTTP status 503.", "log of the collector"),
        ("http_302", "The collector answered with the HTTP status 302.", "declared URL"),
        ("http_799", "The collector answered with the HTTP status 799.", "log of the collector"),
        ("smoke", "The delivery failed with the code smoke.", "manual"),
    ],
)
def test_fault_is_explained_in_words(fault: str, meaning: str, remedy: str) -> None:
    text = get_fault_text(fault)
    assert text.meaning == meaning
    assert remedy in str(text.remedy)
