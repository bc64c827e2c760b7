"""Verification of a copy of the log: the JSON lines of a sink (format `json`), or archives, without
the database.

    python -m django_phi_oidc.audit.log.copies audit.jsonl --public-key KEY

needs no database, no settings and no Django. An administrator of the database can replace its
functions, so that no verification inside it can be trusted; a copy outside is proven by the signed
checkpoints that it contains.
"""

import base64
import gzip
import json
import re
import sys
import zlib
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import PhiOidcError
from ..errors import CheckpointInvalid, ProofInvalid
from ..events import canonical_json, is_restore_event
from ..merkle.checkpoint import Checkpoint, LogKey, verify_checkpoint
from ..merkle.compact import CompactRange
from ..merkle.rfc6962 import hash_leaf
from .bundle import read_public_key, reject_duplicate_members
from .findings import FindingKind, LogFinding, VerificationSummary

ARCHIVE_FORMAT = "phi-oidc-archive/1"
MAX_LINE_BYTES = 16 * 1024 * 1024
_KEPT_LEAVES = 20_000
"""Hashes of the last leaves, to compare what is delivered again: a sink repeats a batch, of at most
500 items.
"""
_KEPT_CHECKPOINTS = 100_000
"""Trees of the last checkpoints: after a restore, a sink goes back to one of them."""
MAX_UNSIGNED_EVENTS = 50_000
"""As many as a checkpoint covers at most. A sink delivers the checkpoint after its events."""
_EPOCH_PATTERN = re.compile(r"(.+)/epoch-([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class _SignedTree:
    """A tree whose root was signed."""

    checkpoint: Checkpoint
    epoch: int
    nodes: tuple[bytes, ...]


def verify_copy(
    lines: Iterable[bytes],
    *,
    keys: Sequence[LogKey],
    summary: VerificationSummary,
    witnessed_checkpoints: Sequence[Checkpoint] = (),
    known_lost_sizes: Collection[int] = (),
) -> Iterator[LogFinding]:
    """Yield what is not as it was sealed, and count in `summary` what was read.

    lines: of all files, in the order in which they were written; repeated items are compared with
    the first ones.
    Other arguments: as for `verify_log`. NOT checked: the MACs, because the leaf hashes prove more;
    when events occurred or were sealed; events after the last checkpoint, which are counted as
    waiting. `summary.unproven` says if there are too many of them.
    Raises: ProofInvalid if no line is an item of a log.
    """
    replay = _CopyReplay(keys, witnessed_checkpoints, known_lost_sizes, summary)
    is_log = False
    for number, line in enumerate(lines, start=1):
        item = _parse_item(line)
        is_log = is_log or item is not None
        for finding in (
            replay.add(item, number) if item is not None else _report_unreadable_line(number)
        ):
            summary.add(finding)
            yield finding
    if not is_log:
        raise ProofInvalid("No line is an item of a log: neither JSON of a sink nor an archive.")
    for finding in replay.end():
        summary.add(finding)
        yield finding


class _CopyReplay:
    """The tree of the lines read so far, and the checkpoints among them."""

    def __init__(
        self,
        keys: Sequence[LogKey],
        witnessed_checkpoints: Sequence[Checkpoint],
        known_lost_sizes: Collection[int],
        summary: VerificationSummary,
    ) -> None:
        self._keys = keys
        self._known_lost_sizes = known_lost_sizes
        self._summary = summary
        self._unseen = list(witnessed_checkpoints)
        self._tree: CompactRange | None = CompactRange()
        """None after a gap: no root can be computed from there on."""
        self._size = 0
        self._recent_hashes: deque[bytes] = deque(maxlen=_KEPT_LEAVES)
        self._signed_trees: dict[int, _SignedTree] = {}
        """By tree size, ascending."""
        self._first_canonical = b""
        """The first event after the last checkpoint: that of an epoch declares it."""
        self._lost_trees: dict[int, _SignedTree] = {}
        """By tree size: checkpoints of leaves that come again, or were replaced by others."""
        self._restores: list[tuple[int, int]] = []
        """The epochs that the log declares, and the sizes that these restores lost."""
        self._archive_index = 0
        self._archive_note = ""
        self._is_in_archive = False
        """The last event was one of an archive, which ends with a checkpoint."""

    def add(self, item: dict[str, Any], number: int) -> Iterator[LogFinding]:
        """Add the item of that line."""
        if item.get("format") == ARCHIVE_FORMAT:
            yield from self._end_archive()
            yield from self._begin_archive(item, number)
        elif "checkpoint" in item:
            yield from self._add_checkpoint(str(item["checkpoint"]))
        elif "event" in item:
            self._is_in_archive = True
            self._archive_index += 1
            yield from self._add_event(self._archive_index - 1, item["event"], number)
        else:
            self._is_in_archive = False
            members = {}
            for name, value in item.items():
                if name not in ("leaf_index", "mac"):
                    members[name] = value
            yield from self._add_event(item["leaf_index"], members, number)

    def end(self) -> Iterator[LogFinding]:
        """Check what the last lines had to contain."""
        yield from self._end_archive()
        self._summary.waiting = max(self._size - self._get_signed_size(), 0)
        self._summary.unproven = self._describe_unproven()
        for checkpoint in self._unseen:
            size = checkpoint.tree_size
            epoch = _split_origin(checkpoint.origin)[1]
            declared = []
            for opened, lost in self._restores:
                if opened > epoch and lost >= size:
                    declared.append(lost)
            if declared:
                yield self._report_declared_fork(size, declared[0])
            elif size > self._size:
                text = (
                    f"A checkpoint of {size} events was kept "
                    f"elsewhere; the copy ends at {self._size}."
                )
                yield LogFinding(kind=FindingKind.LOG_TRUNCATED, text=text, tree_size=size)
            else:
                text = "A checkpoint that was kept elsewhere has another root for this size."
                yield LogFinding(kind=FindingKind.FORK_UNDECLARED, text=text, tree_size=size)

    def _describe_unproven(self) -> str:
        waiting = self._summary.waiting
        if not self._signed_trees:
            return "nothing is proven: no valid checkpoint"
        # Events that replace others are signed, too.
        is_unproven = self._is_in_archive or self._lost_trees or waiting > MAX_UNSIGNED_EVENTS
        if waiting and is_unproven:
            return f"the last {waiting} events are not proven: no valid checkpoint"
        return ""

    def _get_signed_size(self) -> int:
        return next(reversed(self._signed_trees), 0)

    def _begin_archive(self, header: dict[str, Any], number: int) -> Iterator[LogFinding]:
        try:
            first = header["first"]
            note = str(header["checkpoint"])
            tree = CompactRange(
                first, [base64.b64decode(node, validate=True) for node in header["nodes"]]
            )
        except (KeyError, TypeError, ValueError):
            yield from _report_unreadable_line(number)
            return
        self._archive_index = first
        self._archive_note = note
        if first > self._size and self._size:
            yield self._report_gap(first)
        elif self._tree is not None and first == self._size and tree.nodes != self._tree.nodes:
            text = "The archive continues another tree than that of the lines before it."
            yield LogFinding(kind=FindingKind.FORK_UNDECLARED, text=text, leaf_index=first)
        if first > self._size or self._tree is None:
            # The signed root at the end of the archive proves these nodes.
            self._tree = tree
            self._size = first
            self._recent_hashes.clear()

    def _end_archive(self) -> Iterator[LogFinding]:
        if self._archive_note:
            yield from self._add_checkpoint(self._archive_note)
        self._archive_note = ""

    def _add_event(self, leaf_index: Any, members: Any, number: int) -> Iterator[LogFinding]:
        try:
            canonical = canonical_json(members).encode()
        except (UnicodeEncodeError, ValueError, RecursionError):
            canonical = b""
        if type(leaf_index) is not int or leaf_index < 0 or not canonical:
            yield from _report_unreadable_line(number)
            return
        leaf_hash = hash_leaf(canonical)
        if leaf_index < self._size:
            age = self._size - leaf_index
            if age <= len(self._recent_hashes) and self._recent_hashes[-age] == leaf_hash:
                return
            if leaf_index and leaf_index not in self._signed_trees:
                text = f"Line {number} has this leaf again, with another event."
                yield LogFinding(kind=FindingKind.EVENT_ALTERED, text=text, leaf_index=leaf_index)
                return
            self._go_back(leaf_index)
        elif leaf_index > self._size:
            yield self._report_gap(leaf_index)
        self._append(leaf_hash, canonical)

    def _append(self, leaf_hash: bytes, canonical: bytes) -> None:
        if self._size == self._get_signed_size():
            self._first_canonical = canonical
        self._size += 1
        self._summary.events += 1
        self._recent_hashes.append(leaf_hash)
        if self._tree is None:
            return
        self._tree.extend([leaf_hash])
        for checkpoint in list(self._unseen):
            has_this_size = checkpoint.tree_size == self._size
            if has_this_size and checkpoint.root_hash == self._tree.compute_root():
                self._unseen.remove(checkpoint)

    def _go_back(self, size: int) -> None:
        """Continue after an earlier checkpoint: the log was restored from a backup, or is delivered
        again.
        """
        if size:
            nodes = self._signed_trees[size].nodes
        else:
            nodes = ()

        while self._get_signed_size() > size:
            lost_size, tree = self._signed_trees.popitem()
            self._lost_trees[lost_size] = tree
        self._tree = CompactRange(size, nodes)
        self._size = size
        self._recent_hashes.clear()

    def _report_gap(self, leaf_index: int) -> LogFinding:
        text = f"The leaves {self._size} to {leaf_index - 1} are not in the copy."
        finding = LogFinding(kind=FindingKind.EVENT_MISSING, text=text, leaf_index=self._size)
        self._tree = None
        self._size = leaf_index
        self._recent_hashes.clear()
        return finding

    def _add_checkpoint(self, note: str) -> Iterator[LogFinding]:
        try:
            checkpoint = verify_checkpoint(note, self._keys)
        except CheckpointInvalid as error:
            yield LogFinding(kind=FindingKind.TREE_ALTERED, text=str(error), leaf_index=self._size)
            return
        size = checkpoint.tree_size
        known = self._signed_trees.get(size)
        if known is not None and known.checkpoint == checkpoint:
            return
        if size > self._size:
            yield self._report_gap(size)
        elif size < self._size or known is not None:
            text = "It is not in its place, or is another one than that of the same size before."
            yield LogFinding(kind=FindingKind.TREE_ALTERED, text=text, tree_size=size)
            return
        if self._tree is None:
            return
        previous = next(reversed(self._signed_trees.values()), None)
        if self._tree.compute_root() != checkpoint.root_hash:
            if previous:
                start = previous.checkpoint.tree_size
            else:
                start = 0

            text = f"The leaves {start} to {size - 1} do not lead to the root that was signed."
            yield LogFinding(
                kind=FindingKind.EVENT_ALTERED, text=text, tree_size=size, leaf_index=start
            )
            self._tree = None
            return
        yield from self._compare_epochs(checkpoint, previous)
        tree = _SignedTree(checkpoint, _split_origin(checkpoint.origin)[1], self._tree.nodes)
        self._signed_trees[size] = tree
        if len(self._signed_trees) > _KEPT_CHECKPOINTS:
            del self._signed_trees[next(iter(self._signed_trees))]
        self._summary.checkpoints += 1
        self._summary.tree_size = size

    def _compare_epochs(
        self, checkpoint: Checkpoint, previous: _SignedTree | None
    ) -> Iterator[LogFinding]:
        name, epoch = _split_origin(checkpoint.origin)
        lost = self._lost_trees.get(checkpoint.tree_size)
        if lost is not None and lost.checkpoint == checkpoint:
            # Delivered again. Beyond it, the others may still be replaced.
            del self._lost_trees[checkpoint.tree_size]
            return
        largest = max(
            self._lost_trees.values(), key=lambda tree: tree.checkpoint.tree_size, default=None
        )
        before = largest or previous
        if before is None:
            return
        if name != _split_origin(before.checkpoint.origin)[0]:
            text = f"It belongs to another log: {checkpoint.origin}."
            yield LogFinding(
                kind=FindingKind.TREE_ALTERED, text=text, tree_size=checkpoint.tree_size
            )
            return

        declared = None
        if epoch > before.epoch:
            declared = _find_declared_loss(self._first_canonical)

        if declared is not None:
            self._restores.append((epoch, declared))
        if largest is not None:
            yield self._report_fork(largest, declared)
        elif epoch != before.epoch and declared is None:
            text = "Its epoch begins without the event that declares it."
            yield LogFinding(
                kind=FindingKind.FORK_UNDECLARED, text=text, tree_size=checkpoint.tree_size
            )
        self._lost_trees.clear()

    def _report_fork(self, lost: _SignedTree, declared_size: int | None) -> LogFinding:
        """Report that events after an earlier checkpoint were replaced. Only `audit resume`
        declares that.
        """
        size = lost.checkpoint.tree_size
        if declared_size is None or declared_size < size:
            text = (
                "The copy goes on with other events than these, and "
                "the log does not declare a restore."
            )
            return LogFinding(kind=FindingKind.FORK_UNDECLARED, text=text, tree_size=size)
        return self._report_declared_fork(size, declared_size)

    def _report_declared_fork(self, size: int, declared_size: int) -> LogFinding:
        is_fault = declared_size not in self._known_lost_sizes
        text = f"The log was restored and says so: {declared_size} events were known before."

        if is_fault:
            text += f" If you know of that restore, name it: --lost-size {declared_size}."

        return LogFinding(
            kind=FindingKind.FORK_DECLARED, text=text, tree_size=size, is_fault=is_fault
        )


def read_copy_lines(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of the files, of which those named .gz are decompressed.

    Raises: OSError; ProofInvalid for a damaged file, and for a line of more than MAX_LINE_BYTES.
    """
    for path in paths:
        opener: Any
        if path.suffix == ".gz":
            opener = gzip.open
        else:
            opener = open
        try:
            with opener(path, "rb") as file:
                while line := file.readline(MAX_LINE_BYTES):
                    if len(line) == MAX_LINE_BYTES:
                        raise ProofInvalid(f"{path.name} has a line that is too long.")
                    yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ProofInvalid(f"{path.name} is damaged.") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the copy is as it was sealed, 1 if not, and 2 for wrong arguments, or if nothing
    proves it.
    """
    prog = "python -m django_phi_oidc.audit.log.copies"
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "file", type=Path, nargs="+", help="files in the order in which they were written"
    )
    key_help = "verifier key, PEM, base64, or their file"
    parser.add_argument(
        "--public-key", action="append", required=True, metavar="KEY", help=key_help
    )
    parser.add_argument("--checkpoint", action="append", type=Path, default=[], metavar="FILE")
    parser.add_argument("--lost-size", action="append", type=int, default=[], metavar="N")
    options = parser.parse_args(arguments)
    summary = VerificationSummary()
    try:
        keys = []
        for text in options.public_key:
            keys.append(read_public_key(Path(text) if Path(text).is_file() else text))
        findings = verify_copy(
            read_copy_lines(options.file),
            keys=keys,
            summary=summary,
            witnessed_checkpoints=[
                verify_checkpoint(path.read_text("utf-8"), keys) for path in options.checkpoint
            ],
            known_lost_sizes=options.lost_size,
        )
        for finding in findings:
            sys.stdout.write(f"{finding.render_line()}\n")
    except (PhiOidcError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"Cannot be verified: {error}\n")
        return 1
    sys.stdout.write(f"{render_summary(summary)}\n")
    if summary.fault_count:
        return 1
    if summary.unproven:
        return 2
    return 0


def render_summary(summary: VerificationSummary) -> str:
    """Return the totals as a sentence."""
    counts = (
        f"{summary.events} events, {summary.checkpoints} checkpoints, "
        f"{summary.waiting} events after the last one"
    )
    if summary.fault_count:
        return f"{counts}; {summary.fault_count} faults."
    return f"{counts}; {summary.unproven or 'no faults'}."


def _parse_item(line: bytes) -> dict[str, Any] | None:
    """Return the members; None if the line is not an item: a crash can cut a line, which is then
    written again.
    """
    try:
        item = json.loads(line, object_pairs_hook=reject_duplicate_members)
    except (ValueError, RecursionError):
        return None
    is_item = isinstance(item, dict) and not {
        "format",
        "checkpoint",
        "event",
        "leaf_index",
    }.isdisjoint(item)
    return item if is_item else None


def _report_unreadable_line(number: int) -> Iterator[LogFinding]:
    text = f"Line {number} is not an item of the log."
    yield LogFinding(kind=FindingKind.LINE_UNREADABLE, text=text, is_fault=False)


def _find_declared_loss(canonical: bytes) -> int | None:
    """Return the size that an `audit.restored` event declares as lost; None if it is not such an
    event.
    """
    if is_restore_event(canonical):
        with suppress(KeyError, TypeError, ValueError):
            size = json.loads(canonical)["detail"]["tree_size"]
            return size if type(size) is int else None
    return None


def _split_origin(origin: str) -> tuple[str, int]:
    """Return the name of the log and the epoch."""
    match = _EPOCH_PATTERN.fullmatch(origin)
    if match:
        return (match[1], int(match[2]))
    return (origin, 1)


if __name__ == "__main__":
    sys.exit(main())
