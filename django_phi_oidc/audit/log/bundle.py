"""Proof bundles: files that prove that an event is in the log, and their verification with the
log's public key.

    python -m django_phi_oidc.audit.log.bundle proof.json --public-key KEY --witness KEY --witness KEY --quorum 2

needs no database, no settings and no Django. It proves that the event was in the log, byte for
byte, when the checkpoint was signed. It does not prove that the log was continued from there. With
witnesses, it proves that they saw this checkpoint as the largest of the log, so that the operator
cannot show another log to another party.
"""  # noqa: E501

import base64
import binascii
import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ...errors import KeyMissing, PhiOidcError
from ..errors import ProofInvalid
from ..events import canonical_json
from ..merkle.checkpoint import Checkpoint, parse_verifier_key, verify_checkpoint
from ..merkle.cosignature import WitnessKey, parse_witness_key, require_quorum
from ..merkle.proof import verify_consistency, verify_inclusion
from ..merkle.rfc6962 import hash_leaf

INCLUSION_FORMAT = "phi-oidc-inclusion-proof/1"
CONSISTENCY_FORMAT = "phi-oidc-consistency-proof/1"
MAX_BUNDLE_BYTES = 1024 * 1024
_BASE64_KEY_CHARACTERS = 44
"""Of 32 bytes. A verifier key is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedInclusion:
    """What an inclusion bundle proves."""

    event: Mapping[str, Any]
    leaf_index: int
    checkpoint: Checkpoint
    cosigned_at: Mapping[str, int] = field(default_factory=dict)
    """POSIX times by the name of the witness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessPolicy:
    """The cosignatures that a checkpoint must have."""

    keys: Sequence[WitnessKey] = ()
    quorum: int = 0
    """How many of the witnesses with these keys must have cosigned."""


NO_WITNESSES = WitnessPolicy()


def build_inclusion_bundle(
    *, canonical: bytes, leaf_index: int, proof: Sequence[bytes], note: str
) -> str:
    """Return the JSON text of the bundle. canonical: the canonical bytes of the event, the input of
    the leaf hash.
    """
    bundle = {"format": INCLUSION_FORMAT, "event": json.loads(canonical), "leaf_index": leaf_index}
    return _render_json({**bundle, "proof": _encode_hashes(proof), "checkpoint": note})


def build_consistency_bundle(*, old_note: str, new_note: str, proof: Sequence[bytes]) -> str:
    """Return the JSON text of the proof that the new checkpoint continues the old one."""
    bundle = {"format": CONSISTENCY_FORMAT, "old": old_note, "new": new_note}
    return _render_json({**bundle, "proof": _encode_hashes(proof)})


def verify_inclusion_bundle(
    text: str, keys: Sequence[Ed25519PublicKey], *, witnesses: WitnessPolicy = NO_WITNESSES
) -> VerifiedInclusion:
    """Verify an inclusion bundle, and return what it proves.

    Raises: ProofInvalid; CheckpointInvalid, also without the quorum. Spec: RFC 6962 2.1.1, C2SP
    tlog-checkpoint.
    """
    bundle = _parse_bundle(text, INCLUSION_FORMAT, ("event", "leaf_index", "proof", "checkpoint"))
    event = bundle["event"]
    leaf_index = bundle["leaf_index"]
    if not isinstance(event, dict) or type(leaf_index) is not int:
        raise ProofInvalid("The file is not a known proof.")
    checkpoint = verify_checkpoint(str(bundle["checkpoint"]), keys)
    cosigned_at = require_quorum(str(bundle["checkpoint"]), witnesses.keys, quorum=witnesses.quorum)
    try:
        canonical = canonical_json(event).encode()
    except (UnicodeEncodeError, ValueError) as error:
        raise ProofInvalid("The event has no canonical form (RFC 8785).") from error
    verify_inclusion(
        leaf_hash=hash_leaf(canonical),
        leaf_index=leaf_index,
        tree_size=checkpoint.tree_size,
        proof=_parse_hashes(bundle["proof"]),
        root_hash=checkpoint.root_hash,
    )
    return VerifiedInclusion(
        event=event, leaf_index=leaf_index, checkpoint=checkpoint, cosigned_at=cosigned_at
    )


def verify_consistency_bundle(
    text: str, keys: Sequence[Ed25519PublicKey], *, witnesses: WitnessPolicy = NO_WITNESSES
) -> tuple[Checkpoint, Checkpoint]:
    """Verify a consistency bundle, and return the old checkpoint and the new one that continues it.

    witnesses: of the new one. Raises: ProofInvalid; CheckpointInvalid, also without the quorum.
    Spec: RFC 6962 2.1.2.
    """
    bundle = _parse_bundle(text, CONSISTENCY_FORMAT, ("old", "new", "proof"))
    old, new = (verify_checkpoint(str(bundle[name]), keys) for name in ("old", "new"))
    require_quorum(str(bundle["new"]), witnesses.keys, quorum=witnesses.quorum)
    verify_consistency(
        old_size=old.tree_size,
        old_root=old.root_hash,
        new_size=new.tree_size,
        new_root=new.root_hash,
        proof=_parse_hashes(bundle["proof"]),
    )
    return old, new


def read_public_key(source: str | Path) -> Ed25519PublicKey:
    """Return an Ed25519 key: a verifier key (`name+id+key`), PEM, 32 bytes of base64, or the path
    of one of these.

    The name in a verifier key is NOT compared: the origin of a log changes with its epoch, but the
    key may stay.
    Raises: KeyMissing.
    """
    try:
        if isinstance(source, Path):
            text = source.read_text("ascii").strip()
        else:
            text = source.strip()
        if text.startswith("-----"):
            key = load_pem_public_key(text.encode("ascii"))
        elif len(text) > _BASE64_KEY_CHARACTERS:
            key = parse_verifier_key(text)[1]
        else:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (AttributeError, OSError, ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise KeyMissing(
            "A public key of the log can't be read: a verifier key, PEM or base64 is expected."
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyMissing("A public key of the log is not an Ed25519 key.")
    return key


def read_public_keys(texts: Sequence[str]) -> list[Ed25519PublicKey]:
    """Return the keys. texts: of keys, or paths of files that hold them. Raises: KeyMissing."""
    public_keys = []
    for text in texts:
        public_keys.append(read_public_key(Path(text) if Path(text).is_file() else text))
    return public_keys


def build_witness_policy(texts: Sequence[str], *, quorum: int | None) -> WitnessPolicy:
    """Return the policy of these witnesses. quorum: None for all of them.

    texts: verifier keys for cosignatures (`name+id+key`), or paths of files with one. Raises:
    KeyMissing.
    """
    keys = []
    try:
        for text in texts:
            keys.append(_read_witness_key(text))
    except (OSError, ValueError) as error:
        message = (
            "The key of a witness can't be read: a verifier key for "
            "cosignatures (type 0x04) is expected."
        )
        raise KeyMissing(message) from error
    if quorum is None:
        quorum = len(keys)
    return WitnessPolicy(keys=keys, quorum=quorum)


def _read_witness_key(text: str) -> WitnessKey:
    path = Path(text)
    if path.is_file():
        text = path.read_text("ascii")
    return parse_witness_key(text.strip())


def verify_proof_file(
    path: Path, *, public_keys: Sequence[str], witnesses: WitnessPolicy = NO_WITNESSES
) -> str:
    """Verify the proof in a file, of an event or of two checkpoints, and return a sentence about
    it.

    public_keys: as read_public_keys.
    Raises: ProofInvalid, CheckpointInvalid, KeyMissing; OSError if the file cannot be read.
    """
    keys = read_public_keys(public_keys)
    with path.open("rb") as file:
        raw = file.read(MAX_BUNDLE_BYTES + 1)
    if len(raw) > MAX_BUNDLE_BYTES:
        raise ProofInvalid("The file is too large for a proof.")
    text = raw.decode("utf-8", errors="replace")
    if f'"{CONSISTENCY_FORMAT}"' in text[:200]:
        old, new = verify_consistency_bundle(text, keys, witnesses=witnesses)
        return (
            f"Holds: the log of {new.tree_size} events continues "
            f"that of {old.tree_size} ({new.origin})."
        )
    proven = verify_inclusion_bundle(text, keys, witnesses=witnesses)
    event = (
        f"event {proven.event.get('id')} ({proven.event.get('action')}, "
        f"{proven.event.get('occurred_at')})"
    )
    place = (
        f"leaf {proven.leaf_index} of {proven.checkpoint.tree_size} in {proven.checkpoint.origin}"
    )

    if proven.cosigned_at:
        names = f", cosigned by {', '.join(sorted(proven.cosigned_at))}"
    else:
        names = ""

    return f"Holds: {event} is {place}{names}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the proof holds, 1 if not, and 2 for wrong arguments."""
    prog = "python -m django_phi_oidc.audit.log.bundle"
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the proof")
    key_help = "verifier key, PEM, base64, or their file"
    parser.add_argument(
        "--public-key", action="append", required=True, metavar="KEY", help=key_help
    )
    add_witness_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        witnesses = build_witness_policy(options.witness, quorum=options.quorum)
        text = verify_proof_file(options.file, public_keys=options.public_key, witnesses=witnesses)
        sys.stdout.write(f"{text}\n")
    except (PhiOidcError, OSError) as error:
        sys.stderr.write(f"Does not hold: {error}\n")
        return 1
    return 0


def add_witness_arguments(parser: ArgumentParser) -> None:
    """Add `--witness` and `--quorum`."""
    help_text = "The verifier key of a witness, or its file; may be repeated."
    parser.add_argument("--witness", action="append", default=[], metavar="KEY", help=help_text)
    help_text = "How many of these witnesses must have cosigned (default: all)."
    parser.add_argument("--quorum", type=int, metavar="N", help=help_text)


def _parse_bundle(text: str, expected_format: str, members: Sequence[str]) -> dict[str, Any]:
    try:
        bundle = json.loads(text, object_pairs_hook=reject_duplicate_members)
    except (ValueError, RecursionError) as error:
        raise ProofInvalid("The file is not a known proof.") from error
    if (
        not isinstance(bundle, dict)
        or bundle.get("format") != expected_format
        or set(bundle) != {"format", *members}
    ):
        raise ProofInvalid("The file is not a known proof.")
    return bundle


def reject_duplicate_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("Duplicate member.")
    return dict(pairs)


def _parse_hashes(proof: Any) -> list[bytes]:
    if not isinstance(proof, list):
        raise ProofInvalid("The proof is not a list of hashes.")
    try:
        return [base64.b64decode(text, validate=True) for text in proof]
    except (TypeError, ValueError) as error:
        raise ProofInvalid("The proof is not a list of hashes.") from error


def _render_json(bundle: Mapping[str, Any]) -> str:
    return json.dumps(bundle, ensure_ascii=False, indent=1) + "\n"


def _encode_hashes(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(value).decode("ascii") for value in hashes]


if __name__ == "__main__":
    sys.exit(main())
