"""Checkpoints: size and root hash of a log in a note signed with its key.

    log.example/audit                                the origin: name of the log and of its key
    20852163                                         the number of leaves
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=     the root hash
                                                     (the lines above, without this blank line, are signed)
    — log.example/audit Az3grlgtzPICa5OS8npVm...     base64 of the 4 bytes of the key id and the 64 of the signature

A statement is a signed note of another text (`sign_statement`). No text is both.

Spec: C2SP tlog-checkpoint, C2SP signed-note (only Ed25519, signature type 0x01).
"""  # noqa: E501

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import CheckpointInvalid
from .rfc6962 import HASH_BYTES, MAX_TREE_SIZE

MAX_NOTE_BYTES = 65536

ED25519_SIGNATURE_TYPE = b"\x01"
KEY_ID_BYTES = 4
EM_DASH = "\N{EM DASH}"
_KEY_NAME = r"[^\s+\x00-\x1f\ud800-\udfff]{1,255}"
"""A key name: without Unicode spaces, plus signs (signed-note), control characters and
surrogates.
"""
_KEY_NAME_PATTERN = re.compile(_KEY_NAME)
_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_BODY_PATTERN = re.compile(
    rf"({_KEY_NAME})\n(0|[1-9][0-9]{{0,18}})\n([A-Za-z0-9+/=]+)\n(?:[^\n]+\n)*"
)
_SIGNATURE_LINE_PATTERN = re.compile(rf"{EM_DASH} ({_KEY_NAME}) ([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head. Its holder can check whether the log still extends that tree."""

    origin: str
    tree_size: int
    root_hash: bytes


class NoteSignature(NamedTuple):
    """A signature line of a note. NOT checked: that the signature is valid."""

    key_name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A public key of the log that signs no longer: checkpoints of more events are not accepted
    from it.
    """

    public_key: Ed25519PublicKey
    max_tree_size: int
    """Of the last checkpoint that it signed."""


LogKey = Ed25519PublicKey | RetiredKey


class NoteSigner(Protocol):
    """The private key of a log, or a service that has it. `Ed25519PrivateKey` is one."""

    def public_key(self) -> Ed25519PublicKey:
        """Return the public key."""

    def sign(self, data: bytes, /) -> bytes:
        """Return the Ed25519 signature of data (RFC 8032, not pre-hashed)."""


def build_checkpoint_body(checkpoint: Checkpoint) -> str:
    """Return the signed text, including its final newline.

    Raises: ValueError for an origin that is not a key name, a size out of range, or a root not
    HASH_BYTES long.
    Spec: tlog-checkpoint, "Note text".
    """
    if not _KEY_NAME_PATTERN.fullmatch(checkpoint.origin):
        raise ValueError(
            "An origin has 1 to 255 characters, without spaces, plus signs and control characters."
        )
    if not 0 <= checkpoint.tree_size <= MAX_TREE_SIZE or len(checkpoint.root_hash) != HASH_BYTES:
        raise ValueError("No tree has this size, or this root hash.")
    return f"{checkpoint.origin}\n{checkpoint.tree_size}\n{encode_base64(checkpoint.root_hash)}\n"


def sign_checkpoint(checkpoint: Checkpoint, key: NoteSigner) -> str:
    """Return the note, signed with the origin as key name.

    NOT checked: that the log signed no other root for this size, which the caller must guarantee.
    Raises: ValueError, as build_checkpoint_body. Spec: signed-note, "Format".
    """
    return _sign(build_checkpoint_body(checkpoint), checkpoint.origin, key)


def parse_checkpoint(note: str) -> Checkpoint:
    """Return the checkpoint in the note. NOT checked: signatures, except that their lines are
    well-formed.

    Extension lines are ignored. An origin that is not a valid key name is refused.
    Raises: CheckpointInvalid. Spec: tlog-checkpoint, "Note text"; signed-note, "Format".
    """
    return _parse_checkpoint_note(note)[0]


def verify_checkpoint(
    note: str, keys: Sequence[LogKey], *, expected_origin: str | None = None
) -> Checkpoint:
    """Return the checkpoint signed by the log with one of keys. Without keys, nothing is accepted.

    Signatures with other names or keys, such as those of witnesses, are ignored. Every signature
    with the origin's name and the id of one of keys must be valid. NOT checked without
    expected_origin: which log it is.
    Raises: CheckpointInvalid. Spec: signed-note, "Signatures".
    """
    checkpoint, body, signatures = _parse_checkpoint_note(note)
    if expected_origin is not None and checkpoint.origin != expected_origin:
        raise CheckpointInvalid("The checkpoint belongs to another log.")
    usable = [_find_public_key(key, checkpoint.tree_size) for key in keys]
    if not _has_signature(
        body, signatures, checkpoint.origin, [key for key in usable if key is not None]
    ):
        raise CheckpointInvalid("The checkpoint is not signed by a known key of the log.")
    return checkpoint


def sign_statement(body: str, *, name: str, key: NoteSigner) -> str:
    """Return a note of another text than a checkpoint, signed with a key of the log.

    name: the key name. Raises: ValueError for a name that is not valid, or a text that would be a
    signed checkpoint.
    Spec: signed-note, "Format".
    """
    if not _KEY_NAME_PATTERN.fullmatch(name) or _BODY_PATTERN.fullmatch(body):
        raise ValueError("Not a key name, or the text of a checkpoint.")
    return _sign(body, name, key)


def verify_statement(note: str, keys: Sequence[Ed25519PublicKey], *, name: str) -> str:
    """Return the text of a note that is signed with one of keys under this key name, and has no
    other signature.

    NOT checked: what the text says. Raises: CheckpointInvalid. Spec: signed-note, "Signatures".
    """
    body, signatures = split_note(note)
    if len(signatures) != 1 or not _has_signature(body.encode(), signatures, name, keys):
        raise CheckpointInvalid("The note is not signed by a known key of the log.")
    return body


def _sign(body: str, name: str, key: NoteSigner) -> str:
    signature = compute_key_id(name, key.public_key()) + key.sign(body.encode())
    return f"{body}\n{EM_DASH} {name} {encode_base64(signature)}\n"


def _has_signature(
    body: bytes, signatures: Sequence[NoteSignature], name: str, keys: Sequence[Ed25519PublicKey]
) -> bool:
    """Return whether one of keys signed under that name. Raises: CheckpointInvalid for an invalid
    signature of one.
    """
    key_ids = []
    for key in keys:
        key_ids.append((key, compute_key_id(name, key)))
    verified = False
    for line in signatures:
        matching = []
        for key, key_id in key_ids:
            if (line.key_name, line.key_id) == (name, key_id):
                matching.append(key)
        if matching and not any(is_valid_signature(key, line.signature, body) for key in matching):
            raise CheckpointInvalid("A signature of the log's key is not valid.")
        verified = verified or bool(matching)
    return verified


def _find_public_key(key: LogKey, tree_size: int) -> Ed25519PublicKey | None:
    """Return the key that may have signed a checkpoint of this size; None if it was retired
    before.
    """
    if isinstance(key, RetiredKey):
        if tree_size <= key.max_tree_size:
            return key.public_key
        return None
    return key


def compute_key_id(
    name: str, public_key: Ed25519PublicKey, signature_type: bytes = ED25519_SIGNATURE_TYPE
) -> bytes:
    """Return the four bytes that identify the key in a signature. Two keys can have the same id.

    signature_type: one byte, that of a log by default.
    Spec: signed-note, "Ed25519 signatures"; tlog-cosignature, "Format".
    """
    data = name.encode() + b"\n" + signature_type + public_key.public_bytes_raw()
    return sha256(data).digest()[:KEY_ID_BYTES]


def encode_verifier_key(
    name: str, public_key: Ed25519PublicKey, signature_type: bytes = ED25519_SIGNATURE_TYPE
) -> str:
    """Return the vkey, one line of text that contains the public key. Raises: ValueError for the
    name.

    signature_type: as compute_key_id.
    Spec: golang.org/x/mod/sumdb/note, "Verifying Notes", also used by the tools of C2SP.
    """
    if not _KEY_NAME_PATTERN.fullmatch(name):
        raise ValueError(
            "A key name has 1 to 255 characters, without spaces, plus signs and control characters."
        )
    encoded = encode_base64(signature_type + public_key.public_bytes_raw())
    return f"{name}+{compute_key_id(name, public_key, signature_type).hex()}+{encoded}"


def parse_verifier_key(
    text: str, signature_type: bytes = ED25519_SIGNATURE_TYPE
) -> tuple[str, Ed25519PublicKey]:
    """Return name and key of a vkey in canonical form. Raises: ValueError, also for a wrong key id
    or signature type.

    signature_type: as compute_key_id.
    """
    name, _, id_and_key = text.partition("+")
    encoded = id_and_key.partition("+")[2]
    try:
        public_key = Ed25519PublicKey.from_public_bytes(decode_base64(encoded)[1:])
        canonical = encode_verifier_key(name, public_key, signature_type)
    except ValueError:
        canonical = ""
    if not canonical or canonical != text:
        raise ValueError("Not a verifier key for Ed25519.")
    return name, public_key


def _parse_checkpoint_note(note: str) -> tuple[Checkpoint, bytes, list[NoteSignature]]:
    """Return the checkpoint, the signed bytes and the unverified signatures."""
    body, signatures = split_note(note)
    match = _BODY_PATTERN.fullmatch(body)
    if match is None:
        raise CheckpointInvalid("Not the lines of a signed checkpoint.")
    tree_size = int(match[2])
    root_hash = _parse_base64(match[3])
    if tree_size > MAX_TREE_SIZE or len(root_hash) != HASH_BYTES:
        raise CheckpointInvalid("No tree has this size, or this root hash.")
    return (
        Checkpoint(origin=match[1], tree_size=tree_size, root_hash=root_hash),
        body.encode(),
        signatures,
    )


def split_note(note: str) -> tuple[str, list[NoteSignature]]:
    """Return the signed text and the unverified signatures. Raises: CheckpointInvalid."""
    # The first comparison avoids searching very long input.
    if (
        len(note) > MAX_NOTE_BYTES
        or _FORBIDDEN_CHARACTERS.search(note)
        or len(note.encode()) > MAX_NOTE_BYTES
    ):
        raise CheckpointInvalid("Not a note of the accepted form.")
    text, _, lines = note.rpartition("\n\n")
    if not lines.endswith("\n"):
        raise CheckpointInvalid("Not the lines of a signed note.")
    return f"{text}\n", [_parse_signature(line) for line in lines[:-1].split("\n")]


def _parse_signature(line: str) -> NoteSignature:
    match = _SIGNATURE_LINE_PATTERN.fullmatch(line)
    if match:
        signature = _parse_base64(match[2])
    else:
        signature = b""

    if match is None or len(signature) <= KEY_ID_BYTES:
        raise CheckpointInvalid("Not a signature line.")
    return NoteSignature(match[1], signature[:KEY_ID_BYTES], signature[KEY_ID_BYTES:])


def is_valid_signature(key: Ed25519PublicKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(signature, body)
    except InvalidSignature:
        return False
    return True


def _parse_base64(text: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError:
        pass
    raise CheckpointInvalid("Not base64.")


def decode_base64(text: str) -> bytes:
    """Return the bytes of canonical base64 (RFC 4648 4, 3.5). Raises: ValueError."""
    data = base64.b64decode(text, validate=True)
    if encode_base64(data) != text:
        raise ValueError("Not canonical base64.")
    return data


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
