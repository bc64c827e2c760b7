"""What is known outside of the database: a restored one must not sign what was signed before, with other leaves."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .. import conf
from ..errors import CheckpointInvalid, SealingRefused
from ..merkle.checkpoint import Checkpoint, parse_checkpoint
from .models import AuditWitness

LONGEST = 64 * 1024
"""Bytes of a witness file that are read."""


def known_outside(origin: str) -> Iterator[Checkpoint]:
    """Yield the checkpoints of that origin that the witness file and the sinks have. Their signatures are NOT checked.

    Raises: SealingRefused when one can't be read: what it would have said is not known.
    """
    notes = list(AuditWitness.objects.filter(origin=origin).values_list("note", flat=True))
    if (path := witness_file()) and path.exists():
        try:
            notes.append(path.read_bytes()[:LONGEST].decode())
        except (OSError, UnicodeDecodeError) as error:
            raise SealingRefused(f"The witness file can't be read: {type(error).__name__}.") from error
    for note in notes:
        try:
            checkpoint = parse_checkpoint(note)
        except CheckpointInvalid as error:
            raise SealingRefused("The witness file, or what a sink has confirmed, is no checkpoint.") from error
        if checkpoint.origin == origin:
            yield checkpoint


def write_witness_file(note: str) -> None:
    """Put the newest checkpoint into the witness file, where one is configured; the file is whole at any moment.

    Raises: OSError.
    """
    path = witness_file()
    if path is None:
        return
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def witness_file() -> Path | None:
    """Return the path of the witness file; None where none is configured."""
    path = conf.option("AUDIT_WITNESS_FILE")
    return Path(path) if path else None
