"""The option `KEYS`: keys by purpose. No Django."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..config.option_grades import LATER, START_HERE
from ..config.option_parsers import parse_raw

KeySource = str | Path | Sequence[str] | Callable[[], Any] | None
"""A list of keys, newest first, in one of the forms in which a project may give it; None: there is
none.
"""


@dataclass(frozen=True, kw_only=True)
class KeysDeclaration:
    """The option `KEYS`. Sources are read at each use, so that a file or a key service can replace
    keys.
    """

    encryption: Annotated[KeySource, parse_raw] = field(default=None, metadata=START_HERE)
    """[Keys](#a-list-of-keys) that encrypt claims, tokens and pending sign-ins, newest first.
    Default: required.
    """
    subject: Annotated[KeySource, parse_raw] = field(default=None, metadata=START_HERE)
    """[Keys](#a-list-of-keys) of the digests that identify subjects, newest first. Default:
    required.
    """
    audit_mac: Annotated[KeySource, parse_raw] = field(default=None, metadata=START_HERE)
    """[Keys](#a-list-of-keys) of the MACs of events, newest first; keep each as long as there are
    events with its MACs.
    Default: required.
    """
    pairwise: Annotated[KeySource, parse_raw] = field(default=None, metadata=LATER)
    """[Keys](#a-list-of-keys) of the identifiers that `get_pairwise_id` derives for downstream
    systems, newest first.
    Default: required for `get_pairwise_id` only.
    """
    retention: Annotated[Any, parse_raw] = field(default=None, metadata=LATER)
    """`pathlib.Path` of a folder that `phi_oidc keys generate` has prepared, or an object with
    `get`, `create`, `destroy` and `names`: [retention
    keys](../how-to/retention.md#erasure-that-reaches-the-backups), whose destruction erases claims,
    in backups too. Default: none: claims are encrypted under `encryption`.
    """
    audit_signing: Annotated[Path | str | Callable[[], Any] | None, parse_raw] = field(
        default=None, metadata=START_HERE
    )
    """Ed25519 private key in PEM that [signs the audit log](../how-to/seal-the-audit-log.md):
    `pathlib.Path`, text, or a callable; or [a signer](../how-to/signers.md), which keeps the key: a
    `pkcs11:` URI, a dotted path, or a callable that returns one. Only for the process that seals
    the log. Default: none: this process does not seal.
    """
    audit_public: Annotated[Sequence[Path | str | Mapping[str, Any]], parse_raw] = field(
        default=(), metadata=LATER
    )
    """Keys that verify checkpoints, in addition to that of `audit_signing`: verifier keys
    (`name+id+key`), PEM, base64 of 32 bytes, or a `pathlib.Path`. A key that [was
    replaced](../how-to/rotate-keys.md#the-signing-key) is `{"key": …, "until_size": N}`: it
    verifies checkpoints of at most N events.
    """
