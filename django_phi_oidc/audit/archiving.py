"""Sealed events in a file of their own, which proves by itself that it holds what was sealed.

A line says which leaves these are: the tree before them (its perfect subtrees), and the checkpoint after them. Then
comes a line for each event, in the order of the leaves. `audit verify --archive FILE` takes an event from it that is
not in the table any more.
"""

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import ProofInvalid
from ..merkle.checkpoint import verify_checkpoint
from ..merkle.compact import CompactRange
from ..merkle.rfc6962 import leaf_hash
from .models import AuditCheckpoint
from .nodes import range_at
from .reading import read_leaves

FORMAT = "phi-oidc-archive/1"
STRETCH = 10_000
LONGEST_LINE = 16 * 1024 * 1024
_RESTORED = b'{"action":"audit.restored"'
_BEGIN, _MIDDLE, _END = b'{"event":', b',"mac":"', b'"}\n'
_TAIL = len(_MIDDLE) + 64 + len(_END)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A file of the events of the leaves [first, tree_size), found to hold what was sealed."""

    path: Path
    first: int
    tree_size: int
    restored: tuple[tuple[int, bytes], ...] = ()
    """Leaf index and canonical bytes of the events in it that tell of a restore."""


def write_archive(path: Path, *, first: int, tree_size: int, progress: Callable[[int, int], None]) -> str:
    """Write the events of the leaves [first, tree_size) into a new file, of mode 0600, and return its SHA-256 in hex.

    It is compressed when its name ends with .gz, and is there as a whole or not at all.
    Raises: LookupError when tree_size has no checkpoint, or an event of them is gone; FileExistsError; OSError.
    """
    checkpoint = AuditCheckpoint.objects.filter(tree_size=tree_size).first()
    if checkpoint is None or not 0 <= first < tree_size:
        raise LookupError(f"An archive ends at a checkpoint; there is none of {tree_size} events beyond {first}.")
    header = {
        "format": FORMAT,
        "first": first,
        "tree_size": tree_size,
        "nodes": [base64.b64encode(node).decode("ascii") for node in range_at(first).nodes],
        "checkpoint": checkpoint.note,
    }
    if path.exists():
        raise FileExistsError(f"{path} exists already.")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _created(draft, compressed=path.suffix == ".gz") as file:
            file.write(json.dumps(header, ensure_ascii=False).encode() + b"\n")
            for start in range(first, tree_size, STRETCH):
                end = min(start + STRETCH, tree_size)
                file.writelines(_lines(start, end))
                progress(end - first, tree_size - first)
        digest = _sha256(draft)
        # A link, unlike a rename, fails where the name is taken.
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return digest


def check_archive(path: Path, keys: Sequence[Ed25519PublicKey]) -> Archive:
    """Return the archive, read to its end and found to lead from the tree before it to the checkpoint after it.

    The MACs in it are NOT checked: the leaves say more.
    Raises: ProofInvalid, CheckpointInvalid; OSError.
    """
    with _opened(path) as file:
        header = _header(file)
        checkpoint = verify_checkpoint(str(header["checkpoint"]), keys)
        try:
            tree = CompactRange(header["first"], [base64.b64decode(node, validate=True) for node in header["nodes"]])
        except (TypeError, ValueError) as error:
            raise ProofInvalid("The archive's header is not what it must be.") from error
        restored: list[tuple[int, bytes]] = []
        for hashes in _batches(_hashes(file, header["first"], restored)):
            tree.extend(hashes)
            if tree.size > checkpoint.tree_size:
                break
    if (tree.size, tree.root()) != (checkpoint.tree_size, checkpoint.root_hash):
        raise ProofInvalid("The archive does not hold the events that its checkpoint was signed over.")
    return Archive(path=path, first=header["first"], tree_size=checkpoint.tree_size, restored=tuple(restored))


@contextmanager
def reading(archives: Sequence[Archive]) -> Iterator[Callable[[int], bytes | None]]:
    """Give what finds an event's canonical bytes by its leaf index, to be asked in ascending order."""
    files = [(archive, _numbered(archive)) for archive in archives]

    def find(leaf_index: int) -> bytes | None:
        for archive, events in files:
            if archive.first <= leaf_index < archive.tree_size:
                for index, canonical in events:
                    if index == leaf_index:
                        return canonical
        return None

    try:
        yield find
    finally:
        for _, events in files:
            events.close()


def _numbered(archive: Archive) -> Generator[tuple[int, bytes]]:
    with _opened(archive.path) as file:
        _header(file)
        yield from enumerate(_events(file), start=archive.first)


def _lines(start: int, end: int) -> Iterator[bytes]:
    expected = start
    for row in read_leaves(start, end):
        if row.canonical is None or row.leaf_index != expected:
            raise LookupError(f"The event of leaf {expected} is gone: the archive would not be whole.")
        if leaf_hash(row.canonical) != row.leaf_hash:
            raise LookupError(f"The event of leaf {expected} is not what was sealed: `audit verify` tells more.")
        if len(row.canonical) > LONGEST_LINE - _TAIL - len(_BEGIN):
            raise LookupError(f"The event of leaf {expected} is too large for an archive.")
        expected += 1
        yield _BEGIN + row.canonical + _MIDDLE + row.mac.hex().encode("ascii") + _END
    if expected != end:
        raise LookupError(f"The leaf {expected} is gone: the archive would not be whole.")


def _events(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(LONGEST_LINE):
        if not (line.startswith(_BEGIN) and line.endswith(_END) and line[-_TAIL:].startswith(_MIDDLE)):
            raise ProofInvalid("A line of the archive is no event.")
        yield line[len(_BEGIN) : -_TAIL]


def _hashes(file: IO[bytes], first: int, restored: list[tuple[int, bytes]]) -> Iterator[bytes]:
    """Yield the leaf hashes of the events, and put those that tell of a restore into restored."""
    for index, canonical in enumerate(_events(file), start=first):
        if canonical.startswith(_RESTORED):
            restored.append((index, canonical))
        yield leaf_hash(canonical)


def _batches(events: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for event in events:
        batch.append(event)
        if len(batch) == STRETCH:
            yield batch
            batch = []
    yield batch


def _header(file: IO[bytes]) -> dict[str, Any]:
    try:
        header = json.loads(file.readline(LONGEST_LINE))
    except (ValueError, RecursionError) as error:
        raise ProofInvalid("The file is no archive that we know.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or type(header.get("first")) is not int:
        raise ProofInvalid("The file is no archive that we know.")
    if not isinstance(header.get("nodes"), list) or "checkpoint" not in header:
        raise ProofInvalid("The archive's header is not what it must be.")
    return header


@contextmanager
def _created(path: Path, *, compressed: bool) -> Iterator[IO[bytes]]:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if compressed:
            # No name and no time in it: the same events are the same file.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as inner:
                yield inner  # type: ignore[misc]  # a file of bytes in all that is used here
        else:
            yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ProofInvalid("The archive is damaged.") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
