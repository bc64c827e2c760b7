"""The file of an evidence pack, and its signature. No Django: a pack is verified where there is no
portal.

    {"evidence": {…}, "format": "phi-oidc-evidence/1", "signature": "a signed note"}

The text of the note is the format and the SHA-256 of the RFC 8785 text of `evidence`. It is no
checkpoint, because its second line is no number; and no checkpoint is a pack, because the second
line of a checkpoint is one.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ...audit.errors import ProofInvalid
from ...audit.events import canonical_json
from ...audit.merkle.checkpoint import NoteSigner, sign_statement, verify_statement

FORMAT = "phi-oidc-evidence/1"
MAX_PACK_BYTES = 32 * 1024 * 1024


def hash_evidence(evidence: Mapping[str, Any]) -> str:
    """Return the SHA-256, hexadecimal, of the canonical text. Requires: keys are ASCII, and no
    number is a fraction.
    """
    return sha256(canonical_json(evidence).encode()).hexdigest()


def build_pack(evidence: Mapping[str, Any], *, key: NoteSigner) -> str:
    """Return the text of the file, signed under the name of the log in evidence["log"]."""
    return _render(
        evidence, sign_statement(_build_statement(evidence), name=evidence["log"], key=key)
    )


def verify_pack(raw: bytes, keys: Sequence[Ed25519PublicKey]) -> dict[str, Any]:
    """Return the evidence in the file, if one of keys signed it and the file is byte for byte as it
    was written.

    NOT checked: the signature of the checkpoint in it. Raises: ProofInvalid, CheckpointInvalid.
    """
    if len(raw) > MAX_PACK_BYTES:
        raise ProofInvalid("The file is too large for an evidence pack.")
    try:
        text = raw.decode()
        pack = json.loads(text)
        evidence = pack["evidence"]
        note = pack["signature"]
        # This also refuses duplicate members, of which parsers read different ones, and everything
        # outside `evidence`.
        is_unchanged = isinstance(note, str) and _render(evidence, note) == text
        statement = _build_statement(evidence)
        name = evidence["log"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProofInvalid("The file is no evidence pack.") from error
    if not is_unchanged or not isinstance(name, str):
        raise ProofInvalid("The file is not as `phi_oidc evidence` wrote it.")
    if verify_statement(note, keys, name=name) != statement:
        raise ProofInvalid("The evidence is not what was signed.")
    return dict(evidence)


def _build_statement(evidence: Mapping[str, Any]) -> str:
    return f"{FORMAT}\nsha256 {hash_evidence(evidence)}\n"


def _render(evidence: Mapping[str, Any], note: str) -> str:
    pack = {"format": FORMAT, "evidence": evidence, "signature": note}
    return json.dumps(pack, sort_keys=True, ensure_ascii=False, indent=1) + "\n"
