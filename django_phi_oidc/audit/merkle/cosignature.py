"""Cosignatures: a witness states that a checkpoint is the largest consistent one that it has seen
of a log.

A witness is outside of the operator's control, so that the operator can neither rewrite the log nor
show two versions of it. Its signature is a further line of the signed note:

    — witness.example/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9…   base64 of the key id, 8 bytes of time, 64 of signature

The signed message begins with `cosignature/v1`, and then has the time and the whole text of the
checkpoint.

Spec: C2SP tlog-cosignature (only Ed25519, `cosignature/v1`, signature type 0x04).
"""  # noqa: E501

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import CheckpointInvalid
from .checkpoint import (
    EM_DASH,
    compute_key_id,
    encode_base64,
    encode_verifier_key,
    is_valid_signature,
    parse_verifier_key,
    split_note,
)

_COSIGNATURE_TYPE = b"\x04"
_TIME_BYTES = 8
_MAX_TIME = 2**63 - 1


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """The public key of a witness, and its name in signature lines."""

    name: str
    public_key: Ed25519PublicKey

    @property
    def key_id(self) -> bytes:
        """The four bytes that identify the key in a signature line."""
        return compute_key_id(self.name, self.public_key, _COSIGNATURE_TYPE)


def parse_witness_key(text: str) -> WitnessKey:
    """Return the key of a vkey with signature type 0x04. Raises: ValueError, also for the key of a
    log (0x01).
    """
    return WitnessKey(*parse_verifier_key(text, _COSIGNATURE_TYPE))


def encode_witness_key(key: WitnessKey) -> str:
    """Return the vkey with signature type 0x04. Raises: ValueError for the name."""
    return encode_verifier_key(key.name, key.public_key, _COSIGNATURE_TYPE)


def sign_cosignature(note: str, *, name: str, key: Ed25519PrivateKey, time_seconds: int) -> str:
    """Return the signature line, including its newline, of a witness for the checkpoint in the
    note.

    time_seconds: POSIX time. NOT checked: that the log is consistent with what the witness has
    seen, which is the duty of the witness. Raises: CheckpointInvalid if it is no signed note.
    Spec: tlog-cosignature, "Format", "Ed25519 signed message".
    """
    body, _ = split_note(note)
    signature = key.sign(_build_message(body, time_seconds))
    key_id = WitnessKey(name, key.public_key()).key_id
    encoded = encode_base64(key_id + time_seconds.to_bytes(_TIME_BYTES) + signature)
    return f"{EM_DASH} {name} {encoded}\n"


def verify_cosignatures(note: str, keys: Iterable[WitnessKey]) -> dict[str, int]:
    """Return the POSIX time of each witness that cosigned the checkpoint in the note, by the name
    of its key.

    Signatures of other keys are ignored. Every signature with the name and the id of one of keys
    must be valid.
    NOT checked: the signature of the log, and that times are plausible.
    Raises: CheckpointInvalid. Spec: tlog-cosignature, "Ed25519 signed message"; signed-note,
    "Signatures".
    """
    body, signatures = split_note(note)
    times: dict[str, int] = {}
    for key in keys:
        for line in signatures:
            if (line.key_name, line.key_id) != (key.name, key.key_id):
                continue
            time_seconds = int.from_bytes(line.signature[:_TIME_BYTES])
            message = _build_message(body, time_seconds)
            # A zero time would state nothing about when this was the largest checkpoint.
            is_time_valid = 0 < time_seconds <= _MAX_TIME
            if not is_time_valid or not is_valid_signature(
                key.public_key, line.signature[_TIME_BYTES:], message
            ):
                raise CheckpointInvalid("A cosignature is not valid.")
            times[key.name] = max(time_seconds, times.get(key.name, 0))
    return times


def require_quorum(note: str, keys: Iterable[WitnessKey], *, quorum: int) -> Mapping[str, int]:
    """Return what verify_cosignatures returns, if at least `quorum` witnesses cosigned.

    A witness counts once: keys with the same public key are one witness. Raises: CheckpointInvalid.
    """
    keys = {key.public_key.public_bytes_raw(): key for key in keys}.values()
    times = verify_cosignatures(note, keys)
    if len(times) < quorum:
        raise CheckpointInvalid(
            f"The checkpoint is cosigned by {len(times)} of the witnesses; {quorum} are required."
        )
    return times


def add_signature_lines(note: str, lines: Iterable[str]) -> str:
    """Return the note with further signature lines, each with its newline; a line that it has
    already is left out.
    """
    return note + "".join(dict.fromkeys(line for line in lines if f"\n{line}" not in note))


def _build_message(body: str, time_seconds: int) -> bytes:
    return f"cosignature/v1\ntime {time_seconds}\n{body}".encode()
