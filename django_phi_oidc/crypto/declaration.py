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
    """[Keys](#a-list-of-keys) that encrypt claims, tokens and pending sign-ins. Default: required.
    """
    subject: Annotated[KeySource, parse_raw] = field(default=None, metadata=START_HERE)
    """[Keys](#a-list-of-keys) of the digests that identify subjects. Default: required."""
    audit_mac: Annotated[KeySource, parse_raw] = field(default=None, metadata=START_HERE)
    """[Keys](#a-list-of-keys) of the MACs of events; keep each as long as there are events with its
    MACs. Default: required.
    """
    pairwise: Annotated[KeySource, parse_raw] = field(default=None, metadata=LATER)
    """[Keys](#a-list-of-keys) of the identifiers that `get_pairwise_id` derives for downstream
    systems. Default: required for `get_pairwise_id` only.
    """
    audit_signing: Annotated[Path | str | Callable[[], Any] | None, parse_raw] = field(
        default=None, metadata=START_HERE
    )
    """Key that [signs the audit log](../how-to/seal-the-audit-log.md), only for the process that
    seals: an Ed25519 private key in PEM as `pathlib.Path`, text or callable; or [a
    signer](../how-to/signers.md): a `pkcs11:` URI, a dotted path, or a callable. Default: none:
    this process does not seal.
    """
    audit_public: Annotated[Sequence[Path | str | Mapping[str, Any]], parse_raw] = field(
        default=(), metadata=LATER
    )
    """Further keys that verify checkpoints: verifier keys (`name+id+key`), PEM, base64 of 32 bytes,
    or a `pathlib.Path`. A key that [was replaced](../how-to/rotate-keys.md#the-signing-key) is
    `{"key": …, "until_size": N}`: it verifies checkpoints of at most N events.
    """
