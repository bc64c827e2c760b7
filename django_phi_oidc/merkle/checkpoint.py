"""Checkpoints: how large a log was and what root it had, in a note that its key has signed.

    log.example/audit                                the origin: the log's identity, and the name of its key
    20852163                                         the number of leaves
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=     the root hash
                                                     up to here, the blank line left out, it is signed
    — log.example/audit Az3grlgtzPICa5OS8npVm...     base64 of the 4 bytes of the key id and the 64 of the signature

Spec: C2SP tlog-checkpoint, C2SP signed-note (Ed25519 alone, signature type 0x01).
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import CheckpointInvalid
from .rfc6962 import HASH_BYTES, MAX_TREE_SIZE

MAX_NOTE_BYTES = 65536

_ED25519_SIGNATURE_TYPE = b"\x01"
_KEY_ID_BYTES = 4
_EM_DASH = "\N{EM DASH}"
_KEY_NAME = r"[^\s+\x00-\x1f\ud800-\udfff]{1,255}"
"""A key name: no Unicode space and no plus (signed-note), no control character, and nothing that UTF-8 can't hold."""
_KEY_NAME_PATTERN = re.compile(_KEY_NAME)
_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_BODY_PATTERN = re.compile(rf"({_KEY_NAME})\n(0|[1-9][0-9]{{0,18}})\n([A-Za-z0-9+/=]+)\n(?:[^\n]+\n)*")
_SIGNATURE_LINE_PATTERN = re.compile(rf"{_EM_DASH} ({_KEY_NAME}) ([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head. Whoever holds one can tell whether a log still begins with that tree."""

    origin: str
    tree_size: int
    root_hash: bytes


@dataclass(frozen=True, slots=True)
class _NoteSignature:
    key_name: str
    key_id: bytes
    signature: bytes


def build_checkpoint_body(checkpoint: Checkpoint) -> str:
    """Return the text that is signed, its final newline included.

    Raises: ValueError for an origin that is no key name, a size out of range, a root that is not HASH_BYTES long.
    Spec: tlog-checkpoint, "Note text".
    """
    if not _KEY_NAME_PATTERN.fullmatch(checkpoint.origin):
        raise ValueError("An origin has 1 to 255 characters, without spaces, plus signs and control characters.")
    if not 0 <= checkpoint.tree_size <= MAX_TREE_SIZE or len(checkpoint.root_hash) != HASH_BYTES:
        raise ValueError("No tree has this size, or this root hash.")
    return f"{checkpoint.origin}\n{checkpoint.tree_size}\n{_encode_base64(checkpoint.root_hash)}\n"


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """Return the signed note, under the origin as the name of the key.

    NOT checked: that the log signed no other root for this size, which is what the one who calls must never do.

    Raises: ValueError, as checkpoint_body.
    Spec: signed-note, "Format".
    """
    body = build_checkpoint_body(checkpoint)
    signature = compute_key_id(checkpoint.origin, key.public_key()) + key.sign(body.encode())
    return f"{body}\n{_EM_DASH} {checkpoint.origin} {_encode_base64(signature)}\n"


def parse_checkpoint(note: str) -> Checkpoint:
    """Return what the note says. NOT checked: any signature; only that the lines of signatures are well-formed.

    Extension lines are let through and used by nobody. An origin that can't be the name of a key is refused.

    Raises: CheckpointInvalid.
    Spec: tlog-checkpoint, "Note text"; signed-note, "Format".
    """
    return _parse_note(note)[0]


def verify_checkpoint(note: str, keys: Sequence[Ed25519PublicKey], *, expected_origin: str | None = None) -> Checkpoint:
    """Return the checkpoint that the log signed with one of keys. Without keys, nothing is accepted.

    Signatures of other names or keys, such as witnesses', are ignored. One under the origin's name with the id of one
    of keys must verify, even beside another one that does. NOT checked without expected_origin: which log it is.

    Raises: CheckpointInvalid.
    Spec: signed-note, "Signatures".
    """
    checkpoint, body, signatures = _parse_note(note)
    if expected_origin is not None and checkpoint.origin != expected_origin:
        raise CheckpointInvalid("The checkpoint is of another log.")
    known = [(key, compute_key_id(checkpoint.origin, key)) for key in keys]
    verified = False
    for line in signatures:
        fitting = [key for key, its_id in known if line.key_name == checkpoint.origin and line.key_id == its_id]
        if fitting and not any(_is_valid_signature(key, line.signature, body) for key in fitting):
            raise CheckpointInvalid("A signature of the log's key does not verify.")
        verified = verified or bool(fitting)
    if not verified:
        raise CheckpointInvalid("No known key of the log has signed this checkpoint.")
    return checkpoint


def compute_key_id(name: str, public_key: Ed25519PublicKey) -> bytes:
    """Return the four bytes by which a signature says of which key it is. Two keys can share them.

    Spec: signed-note, "Ed25519 signatures".
    """
    return sha256(name.encode() + b"\n" + _ED25519_SIGNATURE_TYPE + public_key.public_bytes_raw()).digest()[
        :_KEY_ID_BYTES
    ]


def encode_verifier_key(name: str, public_key: Ed25519PublicKey) -> str:
    """Return the vkey, the one line by which a key is handed to those who verify. Raises: ValueError for the name.

    Spec: golang.org/x/mod/sumdb/note, "Verifying Notes", whose form C2SP's tools share.
    """
    if not _KEY_NAME_PATTERN.fullmatch(name):
        raise ValueError("A key name has 1 to 255 characters, without spaces, plus signs and control characters.")
    return f"{name}+{compute_key_id(name, public_key).hex()}+{_encode_base64(_ED25519_SIGNATURE_TYPE + public_key.public_bytes_raw())}"


def parse_verifier_key(text: str) -> tuple[str, Ed25519PublicKey]:
    """Return name and key of a vkey, in the one form that verifier_key writes.

    Raises: ValueError, for an id that is not the key's too.
    """
    name, _, id_and_key = text.partition("+")
    encoded = id_and_key.partition("+")[2]
    try:
        public_key = Ed25519PublicKey.from_public_bytes(_decode_base64(encoded)[1:])
        canonical = encode_verifier_key(name, public_key)
    except ValueError:
        canonical = ""
    if not canonical or canonical != text:
        raise ValueError("Not a verifier key of Ed25519.")
    return name, public_key


def _parse_note(note: str) -> tuple[Checkpoint, bytes, list[_NoteSignature]]:
    """Return what the note says, the bytes that are signed, and the signatures, none of them verified."""
    # The first comparison keeps the rest from reading what is far too long.
    if len(note) > MAX_NOTE_BYTES or _FORBIDDEN_CHARACTERS.search(note) or len(note.encode()) > MAX_NOTE_BYTES:
        raise CheckpointInvalid("No note of the accepted kind.")
    text, _, lines = note.rpartition("\n\n")
    body = f"{text}\n"
    read = _BODY_PATTERN.fullmatch(body)
    if read is None or not lines.endswith("\n"):
        raise CheckpointInvalid("Not the lines of a signed checkpoint.")
    signatures = [_parse_signature(line) for line in lines[:-1].split("\n")]
    tree_size, root_hash = int(read[2]), _parse_base64(read[3])
    if tree_size > MAX_TREE_SIZE or len(root_hash) != HASH_BYTES:
        raise CheckpointInvalid("No tree has this size, or this root hash.")
    return Checkpoint(origin=read[1], tree_size=tree_size, root_hash=root_hash), body.encode(), signatures


def _parse_signature(line: str) -> _NoteSignature:
    read = _SIGNATURE_LINE_PATTERN.fullmatch(line)
    signature = _parse_base64(read[2]) if read else b""
    if read is None or len(signature) <= _KEY_ID_BYTES:
        raise CheckpointInvalid("Not a signature line.")
    return _NoteSignature(read[1], signature[:_KEY_ID_BYTES], signature[_KEY_ID_BYTES:])


def _is_valid_signature(key: Ed25519PublicKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(signature, body)
    except InvalidSignature:
        return False
    return True


def _parse_base64(text: str) -> bytes:
    try:
        return _decode_base64(text)
    except ValueError:
        pass
    raise CheckpointInvalid("Not base64.")


def _decode_base64(text: str) -> bytes:
    """Return the bytes of text, their one canonical form. Raises: ValueError. Spec: RFC 4648 4, 3.5."""
    data = base64.b64decode(text, validate=True)
    if _encode_base64(data) != text:
        raise ValueError("Not canonical base64.")
    return data


def _encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
