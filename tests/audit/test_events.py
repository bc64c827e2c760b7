"""The event's vocabulary, its canonical form and its MAC."""

import dataclasses
import hashlib
import hmac
import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.audit.events import (
    DETAIL_KEYS,
    FIELDS,
    MAX_ITEMS,
    SANITIZED,
    Act,
    Action,
    Event,
    Finished,
    Origin,
    build_event,
    canonical_bytes,
    compute_mac,
    event_text,
    parse_event,
    refused_detail,
    strictly,
    without_refused,
)

NOW = datetime(2026, 11, 24, 16, 5, 9, 70, tzinfo=UTC)
ID = uuid.UUID("0192e5a0-0000-7000-8000-000000000001")

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)
any_scalar = any_text | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1)


def an_act(**given: Any) -> Act:
    return Act(**{"action": Action.CLAIM_REVEALED, "origin": Origin(actor="7"), "now": NOW, **given})


def built(**given: Any) -> Event:
    return build_event(an_act(**given), id=ID, mac_key="0123abcd")


def as_json(event: Event) -> dict[str, Any]:
    """Return the members that an independent library is to spell."""
    members = dataclasses.asdict(event)
    occurred_at = event.occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {**members, "id": str(event.id), "occurred_at": occurred_at, "detail": json.loads(event.detail)}


def test_canonical_bytes_of_a_plain_event_are_these() -> None:
    event = built(purpose="TREAT", detail={"claim": "birthdate"}, subject="a-subject", provider="default")
    assert canonical_bytes(event) == (
        b'{"action":"claim.revealed","actor":"7","client_ip":"","detail":{"claim":"birthdate"},'
        b'"id":"0192e5a0-0000-7000-8000-000000000001","mac_key":"0123abcd",'
        b'"occurred_at":"2026-11-24T16:05:09.000070Z","outcome":"success","provider":"default","purpose":"TREAT",'
        b'"reason":"","request_id":"","resource":"","session":"","subject":"a-subject","v":1}'
    )


@given(
    actor=any_text,
    reason=any_text,
    provider=any_text,
    detail=st.dictionaries(st.sampled_from(["rule", "count", "claims", "hint"]), any_scalar | st.lists(any_scalar)),
    now=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_canonical_bytes_of_any_event_equal_those_of_another_library(
    actor: str, reason: str, provider: str, detail: dict[str, Any], now: datetime
) -> None:
    given_act = {"origin": Origin(actor=actor), "reason": reason, "provider": provider, "detail": detail, "now": now}
    event = built(action=Action.ALERT_RAISED, **given_act)
    assert canonical_bytes(event) == rfc8785.dumps(as_json(event))
    assert parse_event(event_text(Finished(event, b"m" * 32))).event == event


def test_event_text_equals_the_canonical_form_with_the_mac_as_one_more_member() -> None:
    event = built()
    assert event_text(Finished(event, b"\xab" * 32)).encode() == rfc8785.dumps({**as_json(event), "mac": "ab" * 32})


def test_compute_mac_is_hmac_sha256_over_the_canonical_bytes() -> None:
    event = built()
    assert compute_mac(event, b"k" * 32) == hmac.new(b"k" * 32, canonical_bytes(event), hashlib.sha256).digest()


@pytest.mark.parametrize("name", FIELDS)
def test_compute_mac_of_an_event_that_differs_in_one_field_differs(name: str) -> None:
    event = built()
    others: dict[str, Any] = {"v": 2, "id": uuid.UUID(int=1), "occurred_at": NOW + timedelta(microseconds=1)}
    other = dataclasses.replace(event, **{name: others.get(name, '{"claim":"x"}' if name == "detail" else "other")})
    assert compute_mac(other, b"k" * 32) != compute_mac(event, b"k" * 32)


def test_detail_keys_are_ascii_and_never_named_like_a_field() -> None:
    keys = {SANITIZED, *(key for keys in DETAIL_KEYS.values() for key in keys)}
    assert keys.isdisjoint({*FIELDS, "mac"})
    assert all(key.isascii() for key in keys)


def test_detail_keys_are_declared_for_each_action() -> None:
    assert set(DETAIL_KEYS) == set(Action)


def test_build_event_in_another_time_zone_writes_utc() -> None:
    event = built(now=NOW.astimezone(timezone(timedelta(hours=-5))))
    assert json.loads(canonical_bytes(event))["occurred_at"] == "2026-11-24T16:05:09.000070Z"


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("line\nbreak", "linebreak"),
        ("nul\x00", "nul"),
        ("c1\x85control", "c1control"),
        ("lone\ud800surrogate", "lonesurrogate"),
        ("line\u2028separator", "lineseparator"),
        ("x" * 257, "x" * 256),
        ("é" * 257, "é" * 256),
    ],
)
def test_build_event_with_a_string_that_must_not_be_kept_cleans_and_flags_it(given_text: str, kept: str) -> None:
    in_field = built(reason=given_text)
    in_detail = built(detail={"claim": given_text})
    in_list = built(action=Action.CLAIM_STORED, detail={"claims": [given_text, "plain"]})
    assert (in_field.reason, in_field.detail) == (kept, '{"sanitized":true}')
    assert json.loads(in_detail.detail) == {"claim": kept, "sanitized": True}
    assert json.loads(in_list.detail) == {"claims": [kept, "plain"], "sanitized": True}


@pytest.mark.parametrize("text", ["x" * 256, "naïve", "𝒳 \U0001f600", 'quoted " and \\', "", "</script>"])
def test_build_event_with_a_string_that_may_be_kept_keeps_it_unflagged(text: str) -> None:
    event = built(reason=text, detail={"claim": text})
    assert (event.reason, json.loads(event.detail)) == (text, {"claim": text})


def test_build_event_with_a_longer_list_than_allowed_cuts_and_flags_it() -> None:
    kept = json.loads(built(action=Action.CLAIM_OVERFETCHED, detail={"claims": ["x"] * MAX_ITEMS}).detail)
    cut = json.loads(built(action=Action.CLAIM_OVERFETCHED, detail={"claims": ["x"] * (MAX_ITEMS + 1)}).detail)
    assert kept == {"claims": ["x"] * MAX_ITEMS}
    assert cut == {**kept, "sanitized": True}


@pytest.mark.parametrize(
    "given_act",
    [{"action": "login.forgotten"}, {"outcome": "perhaps"}, {"now": NOW.replace(tzinfo=None)}, {"detail": {"x": 1}}],
)
def test_build_event_with_one_thing_out_of_the_vocabulary_raises(given_act: dict[str, Any]) -> None:
    assert built().action == "claim.revealed"
    with pytest.raises(ValueError, match=r"\w"):
        built(**given_act)


@pytest.mark.parametrize("value", [2**53 - 1, -(2**53) + 1, True, "text", ["a", 1, False], (), Action.CLAIM_STORED])
def test_refused_detail_with_an_allowed_value_names_nothing(value: Any) -> None:
    assert refused_detail(an_act(detail={"claim": value})) == ()


@pytest.mark.parametrize("value", [2**53, -(2**53), 1.0, None, {"a": 1}, [["a"]], [1.5], b"bytes", {"a"}])
def test_refused_detail_with_a_value_of_no_allowed_type_names_the_key(value: Any) -> None:
    assert refused_detail(an_act(detail={"claim": value})) == ("claim",)


@pytest.mark.parametrize("key", ["birthdate", "sanitized", "claims", "CLAIM"])
def test_refused_detail_with_a_key_that_the_action_does_not_have_names_it(key: str) -> None:
    assert refused_detail(an_act(detail={"claim": "x", key: "x"})) == (key,)


def test_without_refused_in_tests_raises_and_tells_the_key_alone() -> None:
    with strictly(), pytest.raises(ValueError, match="birthdate") as caught:
        without_refused(an_act(detail={"birthdate": "1970-01-01"}))
    assert "1970" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"v":1', '"v":2'),
        ('"v":1', '"v":1 '),
        ('"v":1', '"v":1,"x":1'),
        ('"mac":"ab', '"mac":"AB'),
        ('"mac":"ab', '"mac":"'),
        ('"actor":"7",', ""),
        ('"actor":"7"', '"actor":7'),
        ('"actor":"7"', '"actor":"\\u0007"'),
        ('.000070Z"', '.000070+00:00"'),
        ('"id":"0192', '"id":"XXXX'),
        ('"detail":{}', '"detail":{ }'),
        ('"detail":{}', '"detail":[]'),
    ],
)
def test_parse_event_with_a_text_that_differs_in_one_place_raises(old: str, new: str) -> None:
    text = event_text(Finished(built(), b"\xab" * 32))
    assert parse_event(text) == Finished(built(), b"\xab" * 32)
    with pytest.raises(ValueError, match="vent"):
        parse_event(text.replace(old, new, 1))
