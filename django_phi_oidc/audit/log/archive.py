"""Archives: files of sealed events that can be verified by themselves.

The first line states the leaf range: the tree before it (its perfect subtrees), and the checkpoint
after it. Then there is one line per event, in leaf order. `audit verify --archive FILE` reads
events that are no longer in the table.
"""

import base64
import gzip
import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ..._internal.batches import split_into_batches
from ..errors import ProofInvalid
from ..events import is_restore_event
from ..merkle.checkpoint import Checkpoint, LogKey, verify_checkpoint
from ..merkle.compact import CompactRange
from ..merkle.proof import build_inclusion_proof, verify_inclusion
from ..merkle.rfc6962 import hash_leaf
from ..models import AuditCheckpoint
from .copies import ARCHIVE_FORMAT, MAX_LINE_BYTES
from .reader import find_canonical_id, read_leaves
from .tree_storage import read_compact_range, read_nodes

BATCH_SIZE = 10_000
_LINE_START = b'{"event":'
_MAC_SEPARATOR = b',"mac":"'
_LINE_END = b'"}\n'
_TAIL_BYTES = len(_MAC_SEPARATOR) + 64 + len(_LINE_END)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogArchive:
    """A verified file with the events of the leaves [first_leaf_index, tree_size)."""

    path: Path
    origin: str
    """Of its checkpoint."""
    first_leaf_index: int
    tree_size: int
    root_hash: bytes
    """Of its checkpoint."""
    first_id: uuid.UUID
    """The lowest id of its events."""
    last_id: uuid.UUID
    """The highest one."""
    restore_events: tuple[tuple[int, bytes], ...] = ()
    """Leaf index and canonical bytes of its `audit.restored` events."""


def write_archive(
    path: Path, *, first_leaf_index: int, tree_size: int, progress: Callable[[int, int], None]
) -> str:
    """Write the events of the leaves [first_leaf_index, tree_size) to a new file, and return its
    SHA-256 in hex.

    The file has mode 0600, is compressed if its name ends with .gz, and is written completely or
    not at all.
    Raises: LookupError if tree_size has no checkpoint, or an event is missing; FileExistsError;
    OSError.
    """
    checkpoint = AuditCheckpoint.objects.filter(tree_size=tree_size).first()
    if checkpoint is None or not 0 <= first_leaf_index < tree_size:
        text = (
            "An archive ends at a checkpoint; there is none of "
            f"{tree_size} events beyond {first_leaf_index}."
        )
        raise LookupError(text)
    header = {
        "format": ARCHIVE_FORMAT,
        "first": first_leaf_index,
        "tree_size": tree_size,
        "nodes": [
            base64.b64encode(node).decode("ascii")
            for node in read_compact_range(first_leaf_index).nodes
        ],
        "checkpoint": checkpoint.note,
    }
    if path.exists():
        raise FileExistsError(f"{path} already exists.")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _create_file(draft, compressed=path.suffix == ".gz") as file:
            file.write(json.dumps(header, ensure_ascii=False).encode() + b"\n")
            for start in range(first_leaf_index, tree_size, BATCH_SIZE):
                end = min(start + BATCH_SIZE, tree_size)
                file.writelines(_render_lines(start, end))
                progress(end - first_leaf_index, tree_size - first_leaf_index)
        with draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # Unlike rename, link fails if the name exists.
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return digest


def verify_archive(path: Path, keys: Sequence[LogKey]) -> LogArchive:
    """Read the whole archive, and check that it leads from the tree before it to the checkpoint
    after it.

    The MACs are NOT checked: the leaf hashes prove more. Raises: ProofInvalid, CheckpointInvalid;
    OSError.
    """
    with _open_archive(path) as file:
        header = _read_header(file)
        checkpoint = verify_checkpoint(str(header["checkpoint"]), keys)
        ids: list[str] = []
        try:
            tree = CompactRange(
                header["first"], [base64.b64decode(node, validate=True) for node in header["nodes"]]
            )
        except (TypeError, ValueError) as error:
            raise ProofInvalid("The header of the archive is not valid.") from error
        restore_events: list[tuple[int, bytes]] = []
        events = enumerate(_read_events(file), start=header["first"])
        for batch in split_into_batches(events, BATCH_SIZE):
            for event in batch:
                if is_restore_event(event[1]):
                    restore_events.append(event)
            ids += [find_canonical_id(canonical) for _, canonical in batch]
            ids = [min(ids), max(ids)]
            tree.extend([hash_leaf(canonical) for _, canonical in batch])
            if tree.size > checkpoint.tree_size:
                break
    tree_size = checkpoint.tree_size
    if not ids or (tree.size, tree.compute_root()) != (tree_size, checkpoint.root_hash):
        raise ProofInvalid(
            "The archive does not hold the events that its checkpoint was signed over."
        )
    return LogArchive(
        path=path,
        origin=checkpoint.origin,
        first_leaf_index=header["first"],
        tree_size=tree_size,
        root_hash=checkpoint.root_hash,
        first_id=uuid.UUID(ids[0]),
        last_id=uuid.UUID(ids[1]),
        restore_events=tuple(restore_events),
    )


@contextmanager
def open_archives(archives: Sequence[LogArchive]) -> Iterator[Callable[[int], bytes | None]]:
    """Yield a function from leaf index to canonical bytes, to be called in ascending order."""
    files = [
        (archive, _enumerate_events(archive.path, archive.first_leaf_index)) for archive in archives
    ]

    def find(leaf_index: int) -> bytes | None:
        for archive, events in files:
            if archive.first_leaf_index <= leaf_index < archive.tree_size:
                for index, canonical in events:
                    if index == leaf_index:
                        return canonical
        return None

    try:
        yield find
    finally:
        for _, events in files:
            events.close()


def find_verified_event(
    path: Path, event_id: uuid.UUID, keys: Sequence[LogKey], *, leaves: tuple[int, int]
) -> bytes | None:
    """Return the canonical bytes of an event in an archive of these leaves; None if the archive
    does not have it.

    The file is read up to the event only. The nodes of the log prove that the event is under the
    signed checkpoint of the archive.
    Raises: ProofInvalid, also for an archive of other leaves; CheckpointInvalid; LogDamaged without
    the nodes; OSError.
    """
    if not path.is_file():
        # Opening a named pipe would wait for its writer.
        raise FileNotFoundError(f"{path} is no file.")
    with _open_archive(path) as file:
        header = _read_header(file)
    checkpoint = verify_checkpoint(str(header["checkpoint"]), keys)
    if (header["first"], checkpoint.tree_size) != leaves:
        raise ProofInvalid("The file is an archive of other leaves.")
    if (found := _find_event(path, header["first"], event_id, end=checkpoint.tree_size)) is None:
        return None
    leaf_index, canonical = found
    verify_sealed_event(canonical, leaf_index, checkpoint)
    return canonical


def verify_sealed_event(canonical: bytes, leaf_index: int, checkpoint: Checkpoint) -> None:
    """Check that the nodes of the log prove that this is the event of the leaf under a verified
    checkpoint.

    Raises: ProofInvalid; LogDamaged without the nodes; AuditUnavailable.
    """
    verify_inclusion(
        leaf_hash=hash_leaf(canonical),
        leaf_index=leaf_index,
        tree_size=checkpoint.tree_size,
        proof=build_inclusion_proof(leaf_index, checkpoint.tree_size, read_nodes),
        root_hash=checkpoint.root_hash,
    )


def find_archived_event(archive: LogArchive, event_id: uuid.UUID) -> tuple[int, bytes] | None:
    """Return the leaf index and the canonical bytes of an event in the archive; None without it.

    Reads the file up to there. Raises: ProofInvalid, OSError.
    """
    return _find_event(archive.path, archive.first_leaf_index, event_id, end=archive.tree_size)


def _find_event(
    path: Path, first: int, event_id: uuid.UUID, *, end: int
) -> tuple[int, bytes] | None:
    with closing(_enumerate_events(path, first)) as events:
        lines = islice(events, max(end - first, 0))
        for leaf_index, canonical in lines:
            if find_canonical_id(canonical) == str(event_id):
                return leaf_index, canonical
    return None


def _enumerate_events(path: Path, first_leaf_index: int) -> Generator[tuple[int, bytes]]:
    with _open_archive(path) as file:
        _read_header(file)
        yield from enumerate(_read_events(file), start=first_leaf_index)


def _render_lines(start: int, end: int) -> Iterator[bytes]:
    expected = start
    for row in read_leaves(start, end):
        if row.canonical is None or row.leaf_index != expected:
            raise LookupError(
                f"The event of leaf {expected} is gone: the archive would be incomplete."
            )
        if hash_leaf(row.canonical) != row.leaf_hash:
            raise LookupError(
                f"The event of leaf {expected} is not what was sealed: run `audit verify`."
            )
        if len(row.canonical) > MAX_LINE_BYTES - _TAIL_BYTES - len(_LINE_START):
            raise LookupError(f"The event of leaf {expected} is too large for an archive.")
        expected += 1
        yield (
            _LINE_START + row.canonical + _MAC_SEPARATOR + row.mac.hex().encode("ascii") + _LINE_END
        )
    if expected != end:
        raise LookupError(f"The leaf {expected} is gone: the archive would be incomplete.")


def _read_events(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES):
        has_ends = line.startswith(_LINE_START) and line.endswith(_LINE_END)
        if not (has_ends and line[-_TAIL_BYTES:].startswith(_MAC_SEPARATOR)):
            raise ProofInvalid("A line of the archive is not an event.")
        yield line[len(_LINE_START) : -_TAIL_BYTES]


def _read_header(file: IO[bytes]) -> dict[str, Any]:
    try:
        header = json.loads(file.readline(MAX_LINE_BYTES))
    except (ValueError, RecursionError) as error:
        raise ProofInvalid("The file is not a known archive.") from error
    if (
        not isinstance(header, dict)
        or header.get("format") != ARCHIVE_FORMAT
        or type(header.get("first")) is not int
    ):
        raise ProofInvalid("The file is not a known archive.")
    if (
        not isinstance(header.get("nodes"), list)
        or "checkpoint" not in header
        or header["first"] < 0
    ):
        raise ProofInvalid("The header of the archive is not valid.")
    return header


@contextmanager
def _create_file(path: Path, *, compressed: bool) -> Iterator[IO[bytes]]:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if compressed:
            # Without name and time, the same events make the same file.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as inner:
                yield inner  # type: ignore[misc]  # a binary file as far as it is used here
        else:
            yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _open_archive(path: Path) -> Iterator[IO[bytes]]:
    opener: Any
    if path.suffix == ".gz":
        opener = gzip.open
    else:
        opener = open
    try:
        with opener(path, "rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ProofInvalid("The archive is damaged.") from error
