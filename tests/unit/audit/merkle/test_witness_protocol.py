"""The request for a cosignature, and each response of a witness. Spec: C2SP tlog-witness, "add-checkpoint"."""

import pytest

from django_phi_oidc.audit.merkle.cosignature import sign_cosignature
from django_phi_oidc.audit.merkle.witness_protocol import (
    MAX_CLOCK_DIFFERENCE_SECONDS,
    WitnessAnswer,
    WitnessFault,
    build_add_checkpoint_body,
    process_add_checkpoint_response,
)
from tests.support.witness_server import REQUEST
from tests.unit.audit.merkle.test_cosignature import KEYS, LINES, NOTE, TIME, WITNESSES


def process(status: int, body: bytes, *, now_seconds: int = TIME) -> WitnessAnswer:
    return process_add_checkpoint_response(
        status=status, body=body, note=NOTE, tree_size=7, key=WITNESSES[0], now_seconds=now_seconds
    )


def test_request_is_that_of_the_specification() -> None:
    body = build_add_checkpoint_body(old_size=5, proof=[bytes(32), b"\xff" * 32], note=NOTE).decode()
    lines = ["old 5", "A" * 43 + "=", "/" * 42 + "8=", "", *NOTE.split("\n")]
    assert body.split("\n") == lines
    assert REQUEST.fullmatch(body)


def test_cosignature_is_accepted_among_lines_of_other_keys() -> None:
    body = "".join([LINES[1], LINES[0], LINES[2]]).encode()
    assert process(200, body) == WitnessAnswer(cosignature=LINES[0])


OTHER_NOTE = NOTE.replace("\n7\n", "\n8\n")
WRONG = {
    "no line": b"",
    "line of another witness": LINES[1].encode(),
    "line without its end": LINES[0].encode()[:-9],
    "no text": b"\xff\xfe",
    "cosignature of another checkpoint": sign_cosignature(
        OTHER_NOTE, name=WITNESSES[0].name, key=KEYS[0], time_seconds=TIME
    ).encode(),
    "signature of another key": sign_cosignature(NOTE, name=WITNESSES[0].name, key=KEYS[1], time_seconds=TIME).encode(),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_response_without_a_valid_cosignature_is_a_fault(body: bytes) -> None:
    assert process(200, LINES[0].encode()).cosignature
    assert process(200, body) == WitnessAnswer(fault=WitnessFault.COSIGNATURE_INVALID)


@pytest.mark.parametrize("sign", [1, -1], ids=["behind", "ahead"])
@pytest.mark.parametrize(("more", "is_accepted"), [(0, True), (1, False)])
def test_cosignature_of_another_time_is_a_fault(sign: int, more: int, is_accepted: bool) -> None:
    now_seconds = TIME + sign * (MAX_CLOCK_DIFFERENCE_SECONDS + more)
    assert bool(process(200, LINES[0].encode(), now_seconds=now_seconds).cosignature) is is_accepted


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (409, b"5\n", WitnessAnswer(known_size=5)),
        (409, b"0\n", WitnessAnswer(known_size=0)),
        (409, b"7\n", WitnessAnswer(known_size=7)),
        (409, b"8\n", WitnessAnswer(fault=WitnessFault.LOG_SHORTER)),
        (409, b"5", WitnessAnswer(fault=WitnessFault.SIZE_INVALID)),
        (409, b"05\n", WitnessAnswer(fault=WitnessFault.SIZE_INVALID)),
        (409, b"-5\n", WitnessAnswer(fault=WitnessFault.SIZE_INVALID)),
        (409, b"9223372036854775808\n", WitnessAnswer(fault=WitnessFault.SIZE_INVALID)),
        (422, b"", WitnessAnswer(fault=WitnessFault.LOG_INCONSISTENT)),
        (404, b"", WitnessAnswer(fault=WitnessFault.LOG_UNKNOWN)),
        (403, b"", WitnessAnswer(fault=WitnessFault.KEY_UNKNOWN)),
        (400, b"", WitnessAnswer(fault=WitnessFault.RESPONSE_INVALID)),
        (500, b"", WitnessAnswer(fault=WitnessFault.RESPONSE_INVALID)),
    ],
)
def test_other_status(status: int, body: bytes, answer: WitnessAnswer) -> None:
    assert process(status, body) == answer
