"""The request by which a log obtains a cosignature, and the meaning of the response. No network.

    old 20852014                                      the size that the witness has cosigned last
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=      the consistency proof from that size, one hash a line

    example.com/log                                   the checkpoint, a signed note
    …

Spec: C2SP tlog-witness, "add-checkpoint".
"""  # noqa: E501

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..errors import CheckpointInvalid
from .checkpoint import EM_DASH, encode_base64
from .cosignature import WitnessKey, add_signature_lines, verify_cosignatures
from .rfc6962 import MAX_TREE_SIZE

MAX_RESPONSE_BYTES = 64 * 1024
MAX_CLOCK_DIFFERENCE_SECONDS = 3600
"""How far the clock of a witness may be ahead or behind. An older cosignature was not made for this
request.
"""
_SIZE_PATTERN = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


class WitnessFault(StrEnum):
    """Why a witness gave no cosignature. In reasons of events; described in
    docs/how-to/witnesses.md.
    """

    LOG_SHORTER = "witness_log_shorter"
    """The witness states that it has cosigned a larger checkpoint."""
    LOG_INCONSISTENT = "witness_log_inconsistent"
    """The log does not extend the checkpoint that the witness has cosigned."""
    COSIGNATURE_INVALID = "witness_cosignature_invalid"
    """The response has no valid cosignature of the witness for this checkpoint."""
    SIZE_INVALID = "witness_size_invalid"
    """The witness contradicts itself about the size that it has cosigned."""
    LOG_UNKNOWN = "witness_log_unknown"
    """The witness does not know the origin of the log."""
    KEY_UNKNOWN = "witness_key_unknown"
    """The witness does not accept the key of the log."""
    RESPONSE_INVALID = "witness_response_invalid"
    """Any other response: the witness does not work."""


REFUSALS = frozenset({WitnessFault.LOG_SHORTER, WitnessFault.LOG_INCONSISTENT})
"""Answers of an honest witness to a log that was rewritten or rolled back."""
CONTRADICTIONS = frozenset({WitnessFault.COSIGNATURE_INVALID, WitnessFault.SIZE_INVALID})
"""Answers that no honest witness gives."""

_FAULT_BY_STATUS = {
    403: WitnessFault.KEY_UNKNOWN,
    404: WitnessFault.LOG_UNKNOWN,
    422: WitnessFault.LOG_INCONSISTENT,
}


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """What a response says. Exactly one field is set."""

    cosignature: str = ""
    """The signature line with its newline, verified."""
    known_size: int | None = None
    """The size that the witness has cosigned, which is not the one that the request named."""
    fault: WitnessFault | None = None


def build_add_checkpoint_body(*, old_size: int, proof: Sequence[bytes], note: str) -> bytes:
    """Return the body of the request. proof: RFC 6962 consistency proof from old_size to the
    checkpoint in the note.

    Spec: tlog-witness, "add-checkpoint".
    """
    lines = [f"old {old_size}\n", *(f"{encode_base64(node)}\n" for node in proof), "\n", note]
    return "".join(lines).encode()


def process_add_checkpoint_response(
    *, status: int, body: bytes, note: str, tree_size: int, key: WitnessKey, now_seconds: int
) -> WitnessAnswer:
    """Return what the response says about the checkpoint of tree_size in the note; never raises.

    A size above tree_size in a 409 is a fault: the log was longer. now_seconds: POSIX time.
    Spec: tlog-witness, "add-checkpoint".
    """
    if status == 200:
        return _process_cosignatures(body, note=note, key=key, now_seconds=now_seconds)
    if status == 409:
        return _process_size(body, tree_size=tree_size)
    return WitnessAnswer(fault=_FAULT_BY_STATUS.get(status, WitnessFault.RESPONSE_INVALID))


def _process_size(body: bytes, *, tree_size: int) -> WitnessAnswer:
    matched = _SIZE_PATTERN.fullmatch(body)
    if matched is None or (size := int(matched[1])) > MAX_TREE_SIZE:
        return WitnessAnswer(fault=WitnessFault.SIZE_INVALID)

    if size > tree_size:
        return WitnessAnswer(fault=WitnessFault.LOG_SHORTER)
    return WitnessAnswer(known_size=size)


def _process_cosignatures(
    body: bytes, *, note: str, key: WitnessKey, now_seconds: int
) -> WitnessAnswer:
    """Return the first line that is a valid cosignature of that key. Lines of other keys are
    ignored.
    """
    invalid = WitnessAnswer(fault=WitnessFault.COSIGNATURE_INVALID)
    try:
        for text in body.decode().split("\n"):
            if not text.startswith(f"{EM_DASH} {key.name} "):
                continue
            line = f"{text}\n"
            times = verify_cosignatures(add_signature_lines(note, [line]), [key])
            if times and abs(times[key.name] - now_seconds) <= MAX_CLOCK_DIFFERENCE_SECONDS:
                return WitnessAnswer(cosignature=line)
    except (UnicodeDecodeError, CheckpointInvalid):
        return invalid
    return invalid
