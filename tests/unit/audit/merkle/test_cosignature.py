"""Cosignatures: signed by the package or by an independent witness, and one damage at a time. C2SP tlog-cosignature."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from django_phi_oidc.audit.errors import CheckpointInvalid
from django_phi_oidc.audit.merkle.checkpoint import (
    Checkpoint,
    encode_verifier_key,
    sign_checkpoint,
    verify_checkpoint,
)
from django_phi_oidc.audit.merkle.cosignature import (
    WitnessKey,
    add_signature_lines,
    encode_witness_key,
    parse_witness_key,
    require_quorum,
    sign_cosignature,
    verify_cosignatures,
)
from tests.support.witness_server import Witness

LOG_KEY = Ed25519PrivateKey.from_private_bytes(b"the key of a log, for tests only")
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3)]
WITNESSES = [WitnessKey(f"witness.example/w{number}", key.public_key()) for number, key in enumerate(KEYS, start=1)]
NOTE = sign_checkpoint(Checkpoint(origin="log.example/audit", tree_size=7, root_hash=bytes(range(32))), LOG_KEY)
TIME = 1679315147
LINES = [
    sign_cosignature(NOTE, name=witness.name, key=key, time_seconds=TIME + number)
    for number, (witness, key) in enumerate(zip(WITNESSES, KEYS, strict=True))
]


def changed_blob(line: str, change: Callable[[bytes], bytes]) -> str:
    dash, name, encoded = line.split()
    return f"{dash} {name} {base64.b64encode(change(base64.b64decode(encoded))).decode()}\n"


def test_message_key_id_and_line_are_those_of_the_specification() -> None:
    body = NOTE.partition("\n\n")[0] + "\n"
    dash, name, encoded = LINES[0].removesuffix("\n").split(" ")
    blob = base64.b64decode(encoded)
    public_key = KEYS[0].public_key()
    assert (dash, name, len(blob)) == ("—", "witness.example/w1", 4 + 8 + 64)
    assert blob[:4] == hashlib.sha256(b"witness.example/w1\n\x04" + public_key.public_bytes_raw()).digest()[:4]
    assert int.from_bytes(blob[4:12], "big") == TIME
    public_key.verify(blob[12:], f"cosignature/v1\ntime {TIME}\n{body}".encode())


def test_cosignature_of_an_independent_witness_is_verified(tmp_path: Path) -> None:
    witness = Witness("witness.example/other", tmp_path, {"log.example/audit": LOG_KEY.public_key()})
    status, line = witness.answer(f"old 0\n\n{NOTE}".encode())
    assert status == 200
    key = parse_witness_key(witness.vkey)
    assert encode_witness_key(key) == witness.vkey
    assert list(verify_cosignatures(add_signature_lines(NOTE, [line.decode()]), [key])) == [key.name]


def test_log_signature_is_still_verified_in_a_cosigned_note() -> None:
    note = add_signature_lines(NOTE, LINES)
    assert verify_checkpoint(note, [LOG_KEY.public_key()]).tree_size == 7
    assert verify_cosignatures(note, WITNESSES[:2]) == {"witness.example/w1": TIME, "witness.example/w2": TIME + 1}


def test_line_is_added_once() -> None:
    assert add_signature_lines(add_signature_lines(NOTE, LINES[:1]), LINES[:1]) == NOTE + LINES[0]


DAMAGES: dict[str, Callable[[str], str]] = {
    "another signature": lambda line: changed_blob(line, lambda blob: blob[:-1] + bytes([blob[-1] ^ 1])),
    "another time": lambda line: changed_blob(line, lambda blob: blob[:11] + bytes([blob[11] ^ 1]) + blob[12:]),
    "no time": lambda line: changed_blob(line, lambda blob: blob[:4] + blob[12:]),
    "time zero": lambda line: sign_cosignature(NOTE, name=WITNESSES[0].name, key=KEYS[0], time_seconds=0),
    "time of 64 bits": lambda line: sign_cosignature(NOTE, name=WITNESSES[0].name, key=KEYS[0], time_seconds=2**63),
    "another checkpoint": lambda line: sign_cosignature(
        NOTE.replace("\n7\n", "\n8\n"), name=WITNESSES[0].name, key=KEYS[0], time_seconds=TIME
    ),
    "another origin": lambda line: sign_cosignature(
        NOTE.replace("log.example/audit\n7", "log.example/other\n7"),
        name=WITNESSES[0].name,
        key=KEYS[0],
        time_seconds=TIME,
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_cosignature_is_refused(damage: Callable[[str], str]) -> None:
    assert verify_cosignatures(NOTE + LINES[0], WITNESSES) == {WITNESSES[0].name: TIME}
    with pytest.raises(CheckpointInvalid):
        verify_cosignatures(NOTE + damage(LINES[0]), WITNESSES)


def test_cosignature_of_an_unknown_key_is_ignored() -> None:
    assert verify_cosignatures(NOTE + LINES[0], WITNESSES[1:]) == {}
    renamed = [WitnessKey("witness.example/renamed", WITNESSES[0].public_key)]
    assert verify_cosignatures(NOTE + LINES[0], renamed) == {}


def test_log_signature_is_no_cosignature() -> None:
    """The key of the log as that of a witness: the type of the signature differs, and thus the key id."""
    assert verify_cosignatures(NOTE, [WitnessKey("log.example/audit", LOG_KEY.public_key())]) == {}


@pytest.mark.parametrize(("lines", "quorum", "is_reached"), [(2, 2, True), (1, 2, False), (3, 2, True), (0, 0, True)])
def test_quorum(lines: int, quorum: int, is_reached: bool) -> None:
    note = add_signature_lines(NOTE, LINES[:lines])
    if is_reached:
        assert len(require_quorum(note, WITNESSES, quorum=quorum)) == lines
    else:
        with pytest.raises(CheckpointInvalid, match=r"cosigned by 1 of the witnesses; 2 are required\.$"):
            require_quorum(note, WITNESSES, quorum=quorum)


def test_one_key_with_two_names_counts_once() -> None:
    second = WitnessKey("witness.example/again", WITNESSES[0].public_key)
    line = sign_cosignature(NOTE, name=second.name, key=KEYS[0], time_seconds=TIME)
    note = add_signature_lines(NOTE, [LINES[0], line])
    assert len(require_quorum(note, [WITNESSES[0], second], quorum=1)) == 1
    with pytest.raises(CheckpointInvalid):
        require_quorum(note, [WITNESSES[0], second], quorum=2)


@pytest.mark.parametrize(
    "text",
    [
        encode_verifier_key("witness.example/w1", KEYS[0].public_key()),
        encode_witness_key(WITNESSES[0]).replace("w1", "w2", 1),
        encode_witness_key(WITNESSES[0])[:-1],
        "",
    ],
    ids=["key of a log", "another name", "cut", "empty"],
)
def test_other_text_is_no_witness_key(text: str) -> None:
    assert parse_witness_key(encode_witness_key(WITNESSES[0])) == WITNESSES[0]
    with pytest.raises(ValueError, match=r"^Not a verifier key for Ed25519\.$"):
        parse_witness_key(text)
