"""P1: each format, and the texts of the admin, of events with hostile contents that the sealer seals."""

import json
from datetime import UTC, datetime

import pytest

from django_phi_oidc.audit.descriptions import get_detail_label, get_detail_value_label
from django_phi_oidc.audit.descriptions.event_sentences import describe_event
from django_phi_oidc.audit.events import AuthenticatedEvent, canonical_bytes, is_valid_event, parse_detail
from django_phi_oidc.audit.formats import item_to_line
from django_phi_oidc.audit.formats.items import LogFormat, SealedEvent
from django_phi_oidc.audit.formats.rfc5424 import build_frame
from tests.support.hostile_events import create_hostile_events

COUNT = 600
LAST = datetime(2100, 1, 1, tzinfo=UTC)
EVENTS = list(create_hostile_events(COUNT, seed=1, until=LAST, mac_key="0123abcd"))


def test_p1_hostile_events_are_valid() -> None:
    assert [event for event in EVENTS if not is_valid_event(canonical_bytes(event))] == []
    assert len({event.action for event in EVENTS}) > 50


@pytest.mark.parametrize("log_format", ["json", "ocsf", "cef", "fhir"])
def test_p1_hostile_event_has_a_line_in_each_format(log_format: LogFormat) -> None:
    for event in EVENTS:
        item = SealedEvent(leaf_index=7, leaf_hash=bytes(32), authenticated_event=AuthenticatedEvent(event, bytes(32)))
        line = item_to_line(item, log_format, hostname="portal")
        assert "\n" not in line
        assert str(event.id) in line
        if log_format != "cef":
            assert isinstance(json.loads(line), dict)
        assert build_frame(item, line, hostname="portal").endswith(line.encode())


def test_p1_hostile_event_has_a_sentence_and_labels() -> None:
    for event in EVENTS:
        assert describe_event(event)
        for key, value in parse_detail(event.detail).items():
            assert isinstance(get_detail_label(key), str)
            assert isinstance(get_detail_value_label(key, str(value)), str)
