"""Actions, canonical form and MAC of events."""

import hashlib
import hmac
import json
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc._internal.randomness import lowest_uuid7
from django_phi_oidc.audit import events
from django_phi_oidc.audit.events import (
    DETAIL_KEYS,
    DETAIL_TYPES,
    EVENT_FIELDS,
    MAX_EVENT_BYTES,
    MAX_ITEMS,
    RESERVED_PREFIXES,
    SANITIZED_KEY,
    UNKEYED_RESOURCE_TYPES,
    Action,
    AuthenticatedEvent,
    DetailType,
    Event,
    NewEvent,
    Origin,
    build_event,
    canonical_bytes,
    canonical_json,
    compute_mac,
    compute_resource_pseudonym,
    could_be_recorded,
    drop_refused_detail,
    find_event,
    get_registered_disclosure_actions,
    has_plain_columns,
    has_time_of_id,
    is_restore_event,
    is_valid_event,
    list_refused_detail_keys,
    parse_event,
    raise_on_refused_detail,
    register_actions,
    serialize_event,
)

NOW = datetime(2026, 11, 24, 16, 5, 9, 70, tzinfo=UTC)
ID = uuid.UUID("01a20e4d-cb08-711e-8000-000000000001")

CHART = "hospital.chart_printed"
register_actions({CHART: {"pages", "printer"}})

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)
any_scalar = any_text | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1)


def new_event(**fields: Any) -> NewEvent:
    return NewEvent(**{"action": Action.CLAIM_REVEALED, "origin": Origin(actor="7"), "now": NOW, **fields})


def built(**fields: Any) -> Event:
    event = new_event(**fields)
    return build_event(event, id=uuid.UUID(int=lowest_uuid7(event.now).int | 1), mac_key="0123abcd")


def as_json(event: Event) -> dict[str, Any]:
    """Return the members for an independent JCS library."""
    members = event._asdict()
    occurred_at = event.occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {**members, "id": str(event.id), "occurred_at": occurred_at, "detail": json.loads(event.detail)}


def test_canonical_bytes_of_a_plain_event() -> None:
    event = built(purpose="TREAT", detail={"claim": "birthdate"}, subject="a-subject", provider="default")
    assert canonical_bytes(event) == (
        b'{"action":"claim.revealed","actor":"7","client_ip":"","detail":{"claim":"birthdate"},'
        b'"id":"01a20e4d-cb08-711e-8000-000000000001","mac_key":"0123abcd",'
        b'"occurred_at":"2026-11-24T16:05:09.000070Z","on_behalf_of":"","outcome":"success","provider":"default",'
        b'"purpose":"TREAT","reason":"","request_id":"","resource":"","session":"","subject":"a-subject","v":1}'
    )


def test_account_that_the_actor_acts_for_is_empty_by_default_and_covered_by_the_mac() -> None:
    alone = built()
    represented = built(origin=Origin(actor="7", on_behalf_of="12"))
    assert (alone.on_behalf_of, represented.on_behalf_of) == ("", "12")
    assert b',"on_behalf_of":"12","outcome":' in canonical_bytes(represented)
    key = bytes(32)
    assert compute_mac(represented, key) != compute_mac(represented._replace(on_behalf_of="13"), key)
    assert compute_mac(alone, key) == compute_mac(represented._replace(on_behalf_of=""), key)


@given(
    actor=any_text,
    reason=any_text,
    provider=any_text,
    detail=st.dictionaries(st.sampled_from(["pages", "printer"]), any_scalar | st.lists(any_scalar)),
    now=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_canonical_bytes_of_any_event_equal_those_of_another_library(
    actor: str, reason: str, provider: str, detail: dict[str, Any], now: datetime
) -> None:
    fields = {"origin": Origin(actor=actor), "reason": reason, "provider": provider, "detail": detail, "now": now}
    event = built(action=CHART, **fields)
    assert canonical_bytes(event) == rfc8785.dumps(as_json(event))
    assert parse_event(serialize_event(AuthenticatedEvent(event, b"m" * 32))).event == event


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('"', id="a quote"),
        pytest.param("a\\b", id="a backslash"),
        pytest.param("a\nb", id="a line feed"),
        pytest.param("\x7f\x85", id="control characters that JSON does not escape"),
        pytest.param("a b", id="nothing to escape"),
    ],
)
def test_canonical_bytes_of_unsanitized_text_equal_those_of_another_library(text: str) -> None:
    event = built()._replace(reason=text)
    assert canonical_bytes(event) == rfc8785.dumps(as_json(event))


def test_serialized_event_is_the_canonical_form_with_the_mac_as_a_member() -> None:
    event = built()
    assert serialize_event(AuthenticatedEvent(event, b"\xab" * 32)).encode() == rfc8785.dumps(
        {**as_json(event), "mac": "ab" * 32}
    )


def test_compute_mac_is_hmac_sha256_over_the_canonical_bytes() -> None:
    event = built()
    assert compute_mac(event, b"k" * 32) == hmac.new(b"k" * 32, canonical_bytes(event), hashlib.sha256).digest()


@pytest.mark.parametrize("name", EVENT_FIELDS)
def test_compute_mac_of_an_event_that_differs_in_one_field_differs(name: str) -> None:
    event = built()
    others: dict[str, Any] = {"v": 2, "id": uuid.UUID(int=1), "occurred_at": NOW + timedelta(microseconds=1)}
    other = event._replace(**{name: others.get(name, '{"claim":"x"}' if name == "detail" else "other")})
    assert compute_mac(other, b"k" * 32) != compute_mac(event, b"k" * 32)


def test_detail_keys_are_ascii_and_never_named_like_a_field() -> None:
    keys = {SANITIZED_KEY, *(key for keys in DETAIL_KEYS.values() for key in keys)}
    assert keys.isdisjoint({*EVENT_FIELDS, "mac"})
    assert all(key.isascii() for key in keys)


def test_detail_keys_are_declared_for_each_action() -> None:
    assert set(DETAIL_KEYS) == set(Action)


def test_build_event_in_another_time_zone_writes_utc() -> None:
    event = built(now=NOW.astimezone(timezone(timedelta(hours=-5))))
    assert json.loads(canonical_bytes(event))["occurred_at"] == "2026-11-24T16:05:09.000070Z"


@pytest.mark.parametrize(
    ("text", "sanitized"),
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
def test_build_event_sanitizes_and_flags_unsafe_strings(text: str, sanitized: str) -> None:
    in_field = built(reason=text)
    in_detail = built(detail={"claim": text})
    in_list = built(action=Action.CLAIM_STORED, detail={"claims": [text, "plain"]})
    assert (in_field.reason, in_field.detail) == (sanitized, '{"sanitized":true}')
    assert json.loads(in_detail.detail) == {"claim": sanitized, "sanitized": True}
    assert json.loads(in_list.detail) == {"claims": [sanitized, "plain"], "sanitized": True}


@pytest.mark.parametrize("text", ["x" * 256, "naïve", "𝒳 \U0001f600", 'quoted " and \\', "", "</script>"])
def test_build_event_keeps_safe_strings_unflagged(text: str) -> None:
    event = built(reason=text, detail={"claim": text})
    assert (event.reason, json.loads(event.detail)) == (text, {"claim": text})


def test_build_event_truncates_and_flags_long_lists() -> None:
    kept = json.loads(built(action=Action.CLAIM_OVERFETCHED, detail={"claims": ["x"] * MAX_ITEMS}).detail)
    cut = json.loads(built(action=Action.CLAIM_OVERFETCHED, detail={"claims": ["x"] * (MAX_ITEMS + 1)}).detail)
    assert kept == {"claims": ["x"] * MAX_ITEMS}
    assert cut == {**kept, "sanitized": True}


def test_build_event_stores_a_tuple_as_a_list_unflagged() -> None:
    event = built(action=Action.CLAIM_OVERFETCHED, detail={"claims": ("x", "y")})
    assert json.loads(event.detail) == {"claims": ["x", "y"]}


@pytest.mark.parametrize(
    "fields",
    [{"action": "login.forgotten"}, {"outcome": "perhaps"}, {"now": NOW.replace(tzinfo=None)}, {"detail": {"x": 1}}],
)
def test_build_event_with_an_invalid_field_raises(fields: dict[str, Any]) -> None:
    assert built().action == "claim.revealed"
    with raise_on_refused_detail(), pytest.raises(ValueError, match=r"\w"):
        build_event(new_event(**fields), id=ID, mac_key="0123abcd")


@pytest.mark.parametrize("value", [2**53 - 1, -(2**53) + 1, True, "text", ["a", 1, False], (), Action.CLAIM_STORED])
def test_detail_with_an_allowed_value_is_not_refused(value: Any) -> None:
    assert list_refused_detail_keys(new_event(action=CHART, detail={"pages": value})) == ()


@pytest.mark.parametrize("value", [2**53, -(2**53), 1.0, None, {"a": 1}, [["a"]], [1.5], b"bytes", {"a"}])
def test_detail_with_a_value_of_another_type_is_refused(value: Any) -> None:
    assert list_refused_detail_keys(new_event(action=CHART, detail={"pages": value})) == ("pages",)


VALUES: dict[DetailType, list[Any]] = {
    DetailType.TEXT: ["", "text"],
    DetailType.INTEGER: [0, -1, 2**53 - 1],
    DetailType.BOOLEAN: [True, False],
    DetailType.TEXTS: [["text"], ("text", "")],
    DetailType.INTEGERS: [[1], (1, 2)],
}
NO_ITEMS: list[Any] = []


@pytest.mark.parametrize("action", DETAIL_KEYS)
def test_p3_value_of_detail_has_the_type_that_its_action_declares(action: str) -> None:
    for key in DETAIL_KEYS[action]:
        detail_type = DETAIL_TYPES[key]
        for type_of_value, values in VALUES.items():
            for value in values:
                event = new_event(action=action, detail={key: value})
                refused = (key,) if type_of_value is not detail_type else ()
                assert list_refused_detail_keys(event) == refused, (key, value)
        is_list = detail_type in {DetailType.TEXTS, DetailType.INTEGERS}
        event = new_event(action=action, detail={key: NO_ITEMS})
        assert list_refused_detail_keys(event) == (() if is_list else (key,))


@pytest.mark.parametrize("action", DETAIL_KEYS)
def test_p3_event_with_a_value_of_another_type_is_not_valid(action: str) -> None:
    for key in DETAIL_KEYS[action]:
        detail_type = DETAIL_TYPES[key]
        for type_of_value, values in VALUES.items():
            for value in values:
                event = built(action=action)._replace(detail=canonical_json({key: value}))
                is_valid = type_of_value is detail_type
                assert find_event(canonical_bytes(event)) == event
                assert is_valid_event(canonical_bytes(event)) is is_valid, (key, value)
                assert is_plain(event) is is_valid
                assert could_be_recorded(event) is is_valid


@pytest.mark.parametrize("action", [Action.ACCESS_GRANTED, Action.API_REFUSED, CHART, "hospital.not_registered"])
@pytest.mark.parametrize(
    ("right", "wrong"), [('{"claims":["x"]}', '{"claims":[1]}'), ('{"provider_status":500}', '{"provider_status":"x"}')]
)
def test_p3_key_has_the_same_type_in_actions_that_do_not_declare_it(action: str, right: str, wrong: str) -> None:
    """Readers of the log look for it in any event."""
    for detail, is_valid in ((right, True), (wrong, False)):
        event = built()._replace(action=action, detail=detail)
        assert is_valid_event(canonical_bytes(event)) is is_valid
        assert is_plain(event) is is_valid


def test_p3_each_key_has_a_type() -> None:
    assert set(DETAIL_TYPES) == {key for keys in DETAIL_KEYS.values() for key in keys}


def test_p3_action_of_a_project_records_a_key_of_this_package_with_its_type_only() -> None:
    register_actions({"hospital.note_read": {"claims", "note"}})
    for claims, refused in ((["a"], ()), ([1], ("claims",)), ("a", ("claims",))):
        event = new_event(action="hospital.note_read", detail={"claims": claims, "note": [1]})
        assert list_refused_detail_keys(event) == refused


@pytest.mark.parametrize("detail", ['{"next":1}', '{"next":["a",true,1]}'])
def test_p3_key_of_a_newer_version_is_valid_but_not_recorded(detail: str) -> None:
    event = built()._replace(detail=detail)
    assert is_valid_event(canonical_bytes(event))
    assert is_plain(event)
    assert list_refused_detail_keys(new_event(detail=json.loads(detail))) == ("next",)


@pytest.mark.parametrize(
    ("difference", "is_valid"),
    [
        (timedelta(milliseconds=990), True),
        (timedelta(milliseconds=-990), True),
        (timedelta(seconds=1, milliseconds=1), False),
        (timedelta(seconds=-1, milliseconds=-1), False),
        (timedelta(days=1), False),
        (timedelta(days=-3650), False),
        (datetime.max.replace(tzinfo=UTC) - NOW, False),
        (datetime.min.replace(tzinfo=UTC) - NOW, False),
    ],
)
def test_p3_event_occurs_at_the_time_of_its_id(difference: timedelta, is_valid: bool) -> None:
    event = built()._replace(occurred_at=NOW + difference)
    canonical = canonical_bytes(event)
    assert find_event(canonical) == event
    assert is_valid_event(canonical) is is_valid
    microseconds = (event.occurred_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert has_time_of_id(ID.bytes, microseconds) is is_valid
    assert could_be_recorded(event) is is_valid


@pytest.mark.parametrize("key", ["birthdate", "sanitized", "claims", "CLAIM"])
def test_detail_key_that_the_action_does_not_have_is_refused(key: str) -> None:
    assert list_refused_detail_keys(new_event(detail={"claim": "x", key: "x"})) == (key,)


def test_refused_detail_in_tests_raises_with_the_key_but_not_the_value() -> None:
    with raise_on_refused_detail(), pytest.raises(ValueError, match="birthdate") as caught:
        drop_refused_detail(new_event(detail={"birthdate": "1970-01-01"}))
    assert "1970" not in str(caught.value)


def test_refused_detail_outside_tests_is_dropped_and_only_keys_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[str] = []
    monkeypatch.setattr(events, "_report_refused_detail", errors.append)
    event = new_event(detail={"claim": "x", "ge\nbürt": "1970-01-01", "y" * 65: 1})
    assert drop_refused_detail(event) == new_event(detail={"claim": "x"})
    assert errors == [f"claim.revealed: not allowed in its detail: 'ge\\nb\\xfcrt', '{'y' * 63}."]
    assert drop_refused_detail(new_event(detail={"claim": "x"})) == new_event(detail={"claim": "x"})
    assert len(errors) == 1


# Actions of host projects


def test_action_of_a_host_project_has_only_its_registered_keys() -> None:
    event = built(action=CHART, detail={"pages": 3, "printer": "ward 4"})
    assert (event.action, json.loads(event.detail)) == (CHART, {"pages": 3, "printer": "ward 4"})
    assert list_refused_detail_keys(new_event(action=CHART, detail={"pages": 3, "claim": "x"})) == ("claim",)
    with raise_on_refused_detail(), pytest.raises(ValueError, match="claim"):
        built(action=CHART, detail={"claim": "x"})


def test_register_actions_again_with_other_keys_raises() -> None:
    register_actions({CHART: ["printer", "pages"]})
    for keys in ({"pages"}, {"pages", "printer", "ward"}):
        with pytest.raises(ValueError, match="other detail keys"):
            register_actions({CHART: keys})
    assert list_refused_detail_keys(new_event(action=CHART, detail={"pages": 3, "printer": "ward 4"})) == ()


def test_disclosures_must_be_registered_in_the_same_call() -> None:
    register_actions({"k.seen": (), "k.kept": ()}, disclosures=["k.seen"])
    assert {"k.seen", "k.kept"} & get_registered_disclosure_actions() == {"k.seen"}
    for wrong in (["k.kept", CHART], "k.kept"):
        with pytest.raises(ValueError, match="disclosures"):
            register_actions({"k.kept": (), "l.kept": ()}, disclosures=wrong)
    assert "k.kept" not in get_registered_disclosure_actions()
    with pytest.raises(ValueError, match="unknown"):
        built(action="l.kept")


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("chart_printed", "a_1.chart_printed"),
        ("b.chart.printed", "b.chart_printed"),
        ("C.chart_printed", "c.chart_printed"),
        ("d.Chart", "d.chart"),
        ("e.", "e.e"),
        (".f", "f.f"),
        ("g.chart-printed", "g.chart_printed"),
        ("h.chart\n", "h.chart"),
        ("i.\u0131", "i.i"),
        (f"j.{'j' * 255}", f"j.{'j' * 254}"),
        *((f"{prefix}.chart_printed", f"{prefix}s.chart_printed") for prefix in sorted(RESERVED_PREFIXES)),
    ],
)
def test_register_actions_with_an_invalid_or_reserved_name_raises(name: str, accepted: str) -> None:
    register_actions({accepted: ()})
    assert built(action=accepted).action == accepted
    with pytest.raises(ValueError, match=r"prefix"):
        register_actions({name: ()})
    with pytest.raises(ValueError, match="unknown"):
        built(action=name)


def test_present_and_planned_prefixes_are_reserved() -> None:
    planned = {"role", "emergency", "key", "delivery", "refresh"}
    assert {action.partition(".")[0] for action in Action} | planned <= RESERVED_PREFIXES


@pytest.mark.parametrize("key", [*EVENT_FIELDS, "mac", SANITIZED_KEY, "a key", "1st", "", "\xe9tage", "a-key"])
def test_register_actions_with_an_invalid_detail_key_registers_nothing(key: str) -> None:
    with pytest.raises(ValueError, match="detail key"):
        register_actions({"k.kept_out": {"pages"}, "k.chart_printed": {"pages", key}})
    with pytest.raises(ValueError, match="unknown"):
        built(action="k.kept_out")


def test_register_actions_with_a_string_as_keys_raises() -> None:
    with pytest.raises(ValueError, match="set of"):
        register_actions({"l.chart_printed": "pages"})


def test_event_modules_do_not_import_django() -> None:
    source = (
        "import sys; from django_phi_oidc.audit.events import NewEvent, Action, Origin, register_actions; "
        "from django_phi_oidc.audit.events import build_event; print('django' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout == "False\n", ran.stderr


# Resource pseudonyms


def test_resource_pseudonym_is_the_type_and_128_bits_of_hmac() -> None:
    mac = hmac.new(b"k" * 32, b"django_phi_oidc resource id\x00Chart/4711", hashlib.sha256)
    assert compute_resource_pseudonym("Chart/4711", key=b"k" * 32) == f"Chart/{mac.hexdigest()[:32]}"


def test_resource_pseudonyms_of_lone_surrogates_differ() -> None:
    halves = {compute_resource_pseudonym(f"Chart/{half}", key=b"k" * 32) for half in ("\ud800", "\ud801", "?")}
    assert len(halves) == 3


@pytest.mark.parametrize("other", ["Chart/4712", "Patient/4711", "Chart/4711/", "4711", "/4711"])
def test_resource_pseudonyms_of_different_resources_differ(other: str) -> None:
    keyed = compute_resource_pseudonym(other, key=b"k" * 32)
    assert keyed.rpartition("/")[2] != compute_resource_pseudonym("Chart/4711", key=b"k" * 32).rpartition("/")[2]
    assert "4711" not in keyed
    assert "4712" not in keyed


@pytest.mark.parametrize("resource", ["", "Chart/", *(f"{kind}/7" for kind in sorted(UNKEYED_RESOURCE_TYPES))])
def test_resources_of_the_package_have_no_pseudonym(resource: str) -> None:
    assert compute_resource_pseudonym(resource, key=b"k" * 32) == resource


@given(any_text)
def test_resource_pseudonym_depends_on_the_key_and_does_not_contain_the_id(resource: str) -> None:
    keyed = compute_resource_pseudonym(resource, key=b"k" * 32)
    _, _, id_ = resource.partition("/") if "/" in resource else ("", "", resource)
    if id_ and resource.partition("/")[0] not in UNKEYED_RESOURCE_TYPES:
        assert keyed != compute_resource_pseudonym(resource, key=b"l" * 32)
        assert keyed.removeprefix(resource.removesuffix(id_)) == keyed[-32:]
    else:
        assert keyed == resource


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
        ('"id":"01a2', '"id":"XXXX'),
        ('"occurred_at":"2026-11-24T16:05:09.000070Z"', '"occurred_at":"0001-01-01T00:00:00.000000+01:00"'),
        ('"occurred_at":"2026-11-24T16:05:09.000070Z"', '"occurred_at":"9999-12-31T23:59:59.000000-01:00"'),
        ('"detail":{}', '"detail":{ }'),
        ('"detail":{}', '"detail":[]'),
    ],
)
def test_parse_event_of_a_text_that_differs_in_one_place_raises(old: str, new: str) -> None:
    text = serialize_event(AuthenticatedEvent(built(), b"\xab" * 32))
    assert parse_event(text) == AuthenticatedEvent(built(), b"\xab" * 32)
    with pytest.raises(ValueError, match="vent"):
        parse_event(text.replace(old, new, 1))


NOT_EVENTS = {
    "an unknown outcome": {"outcome": "x"},
    "an action that cannot be registered": {"action": "claim"},
    "another version": {"v": 2},
    "a version that is no integer": {"v": 1.0},
    "a control character": {"actor": "\x07"},
    "a line separator": {"actor": "\u2028"},
    "a text that is too long": {"actor": "x" * 257},
    "a MAC key that is too long": {"mac_key": "x" * 257},
    "detail that is no JSON": {"detail": "{"},
    "detail that is a list": {"detail": "[]"},
    "detail of brackets": {"detail": "[" * 100_000},
    "detail with a member of the event": {"detail": '{},"id":"x"'},
    "nested detail": {"detail": '{"claim":{"a":"b"}}'},
    "nested lists in detail": {"detail": '{"claims":[["a"]]}'},
    "a number with a fraction in detail": {"detail": '{"count":1.5}'},
    "a number in detail that is too large": {"detail": f'{{"count":{2**53}}}'},
    "a control character in detail": {"detail": '{"claim":"\\u0007"}'},
    "detail with spaces": {"detail": '{"count": 1}'},
    "unsorted detail": {"detail": '{"count":1,"claims":[]}'},
    "detail with a member twice": {"detail": '{"count":1,"count":1}'},
    "detail with a key that is no identifier": {"detail": '{"a b":1}'},
    "too many items in detail": {"detail": f'{{"claims":[{",".join(["1"] * (MAX_ITEMS + 1))}]}}'},
}


@pytest.mark.parametrize("change", NOT_EVENTS.values(), ids=NOT_EVENTS)
def test_e3_canonical_bytes_that_no_code_writes_are_no_event(change: dict[str, Any]) -> None:
    event = built(detail={"claim": "address"})
    canonical = canonical_bytes(event)
    assert (find_event(canonical), is_valid_event(canonical)) == (event, True)
    assert is_plain(event)
    changed = canonical_bytes(event._replace(**change))
    assert (find_event(changed), is_valid_event(changed), is_plain(event._replace(**change))) == (None, False, False)


def is_plain(event: Event) -> bool:
    return has_plain_columns(event.v, event.mac_key, event[4:-1], event.detail)


@given(
    st.dictionaries(
        st.sampled_from([name for name in EVENT_FIELDS if name not in {"id", "v", "occurred_at"}]),
        any_text | st.sampled_from(["a.b", "success", "{}", '{"a":1}', '{"a": 1}', "x" * 256, "x" * 257]),
    )
)
def test_e3_event_with_plain_columns_is_valid(change: dict[str, str]) -> None:
    event = built()._replace(**change)
    if is_plain(event):
        assert find_event(canonical_bytes(event)) == event


@pytest.mark.parametrize("old_and_new", [("-11-24T", "-11-31T"), ("T16:05", "T26:05"), ("Z", "z"), ("2026-", "0000-")])
def test_e3_time_that_does_not_exist_is_no_event(old_and_new: tuple[str, str]) -> None:
    canonical = canonical_bytes(built()).decode()
    assert is_valid_event(canonical.encode())
    changed = canonical.replace(*old_and_new).encode()
    assert (find_event(changed), is_valid_event(changed)) == (None, False)


@given(text=any_text, value=any_scalar | st.lists(any_scalar, max_size=3))
def test_e3_every_built_event_is_valid(text: str, value: Any) -> None:
    with raise_on_refused_detail():
        event = built(action=CHART, reason=text, detail={"pages": value})
    assert (find_event(canonical_bytes(event)), is_valid_event(canonical_bytes(event))) == (event, True)


def test_e3_event_that_no_collector_would_accept_is_not_valid() -> None:
    items = [f'"{number:06}{"x" * 250}"' for number in range(MAX_ITEMS)]
    lists = [f'"k{number:03}":[{",".join(items)}]' for number in range(70)]
    large = canonical_bytes(built()._replace(detail=f"{{{','.join(lists)}}}"))
    small = canonical_bytes(built()._replace(detail=f"{{{','.join(lists[:60])}}}"))
    assert len(small) < MAX_EVENT_BYTES < len(large)
    assert (is_valid_event(small), is_valid_event(large)) == (True, False)


def test_e1_restore_event_is_recognized() -> None:
    assert is_restore_event(canonical_bytes(built()._replace(action="audit.restored")))
    assert not is_restore_event(canonical_bytes(built()._replace(action="audit.archived")))
