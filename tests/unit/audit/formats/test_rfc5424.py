"""Messages are parsed by the grammar of RFC 5424 6, written as a regular expression."""

import re
from typing import Any

import pytest

from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.formats.items import SealedCheckpoint, SealedEvent
from django_phi_oidc.audit.formats.rfc5424 import build_frame, build_message
from tests.support.sealed_events import NOW, digest, finished

GRAMMAR = re.compile(
    rb"<(?P<pri>[0-9]{1,3})>1 "
    rb"(?P<timestamp>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})) "
    rb"(?P<hostname>-|[!-~]{1,255}) (?P<app>-|[!-~]{1,48}) (?P<procid>-|[!-~]{1,128}) (?P<msgid>-|[!-~]{1,32}) "
    rb'(?P<data>-|(\[[!#-<>-\\^-~]{1,32}( [!#-<>-\\^-~]{1,32}="([^"\\\]]|\\.)*")*\])+)'
    rb"( (?P<msg>.*))?",
    re.DOTALL,
)
CHECKPOINT = SealedCheckpoint(tree_size=7, root_hash=digest("root"), epoch=1, sealed_at=NOW, note="o\n7\n")


def sealed(action: str = Action.CLAIM_REVEALED, **fields: Any) -> SealedEvent:
    return SealedEvent(leaf_index=41, leaf_hash=digest("leaf"), authenticated_event=finished(action, **fields))


def parts(message: bytes) -> dict[str, bytes]:
    match = GRAMMAR.fullmatch(message)
    assert match, message
    return match.groupdict()


@pytest.mark.parametrize("action", [action.value for action in Action])
def test_build_message_follows_the_grammar(action: str) -> None:
    item = sealed(action)
    read = parts(build_message(item, "text", hostname="portal-1"))
    assert (read["hostname"], read["app"], read["procid"], read["msgid"]) == (
        b"portal-1",
        b"phi_oidc",
        b"-",
        action.encode(),
    )
    assert read["timestamp"] == b"2026-11-24T12:00:00.000000Z"
    assert read["data"] == f'[phi@32473 id="{item.authenticated_event.event.id}" leaf="41"]'.encode()
    assert read["msg"] == b"text"


@pytest.mark.parametrize(
    ("action", "outcome", "severity"),
    [
        (Action.CLAIM_REVEALED, "success", 6),
        (Action.CLAIM_REVEALED, "failure", 4),
        (Action.CLAIM_REVEALED, "error", 3),
        (Action.ALERT_RAISED, "success", 1),
    ],
)
def test_build_message_has_the_facility_log_audit_and_a_severity(action: str, outcome: Any, severity: int) -> None:
    read = parts(build_message(sealed(action, outcome=outcome), "text", hostname="h"))
    assert int(read["pri"]) == 13 * 8 + severity


def test_build_message_of_a_checkpoint_names_its_size() -> None:
    read = parts(build_message(CHECKPOINT, "text", hostname="h"))
    assert (read["pri"], read["msgid"], read["data"]) == (b"109", b"checkpoint", b'[phi@32473 checkpoint="7"]')


def test_build_message_of_ascii_has_no_bom() -> None:
    assert parts(build_message(CHECKPOINT, "plain", hostname="h"))["msg"] == b"plain"


def test_build_message_of_other_text_is_utf8_after_a_bom() -> None:
    assert parts(build_message(CHECKPOINT, "ü𝒳", hostname="h"))["msg"] == b"\xef\xbb\xbf" + "ü𝒳".encode()


@pytest.mark.parametrize(
    ("hostname", "expected"), [("", b"-"), ("a b\n", b"a_b_"), ("ü", b"_"), ("x" * 300, b"x" * 255)]
)
def test_build_message_replaces_invalid_hostname_characters(hostname: str, expected: bytes) -> None:
    assert parts(build_message(CHECKPOINT, "text", hostname=hostname))["hostname"] == expected


def test_frame_counts_octets_and_not_characters() -> None:
    """Spec: RFC 5425 4.3.1: MSG-LEN SP SYSLOG-MSG."""
    length, _, message = build_frame(CHECKPOINT, "ü", hostname="h").partition(b" ")
    assert int(length) == len(message)
    assert message == build_message(CHECKPOINT, "ü", hostname="h")
