"""Permits of an emergency while the trail is away: a file of this machine, a line each, which drains into the trail.

A line is `link event`: the event's canonical text with its own MAC, and HMAC-SHA256, under that MAC's key, over the
link before and the text. So a line that is altered, taken out, slipped in or moved is noticed, and named by an alert.
NOT noticed: whole lines that are cut off at the end, by somebody who can write the file. What a kill cut off in the
middle has no line end, and let nobody in. Several processes may have one file. Requires: POSIX (flock).
"""

import fcntl
import hmac
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ..crypto import keyring
from ..errors import AuditUnavailable, KeyMissing
from .events import Action, AuthenticatedEvent, NewEvent, Origin, parse_event, serialize_event
from .storage import EVENT_ERRORS, authenticate_event, has_valid_mac, insert_events, logger, store_missing_events

MAX_SPOOL_BYTES = 4 * 1024 * 1024
"""Of the file: some 5,000 permits."""
_MAX_LINE_BYTES = 64 * 1024
_BATCH_SIZE = 500
_LINK_DOMAIN = b"django_phi_oidc spool\x00"


class _SpoolLine(NamedTuple):
    raw: bytes
    event: AuthenticatedEvent | None
    """What is genuine in it by its own MAC."""
    is_linked: bool


def record_or_spool(new_event: NewEvent, *, path: Path, timeout_seconds: float) -> bool:
    """Commit the event of act to the trail, or put it on the disk; say whether it is in the trail.

    seconds: as `commit` takes them: a trail that hangs is not waited for. The event has one id either way, so that
    one which was committed unnoticed is not written again.
    Raises: AuditUnavailable, and then nothing may be permitted.
    """
    try:
        finished = authenticate_event(new_event)
        try:
            insert_events([finished], timeout_seconds=timeout_seconds)
        except AuditUnavailable:
            _append_to_spool(finished, path=path, max_bytes=MAX_SPOOL_BYTES)
            return False
    except (*EVENT_ERRORS, KeyMissing) as error:
        raise AuditUnavailable from error
    return True


def spool_event(new_event: NewEvent, *, path: Path, max_bytes: int = MAX_SPOOL_BYTES) -> uuid.UUID:
    """Return the id of the event of act, which is on the disk when this returns, and in the trail after a drain.

    Raises: AuditUnavailable where the file is full or can't be written, and then nothing may be permitted.
    """
    try:
        finished = authenticate_event(new_event)
    except KeyMissing as error:
        raise AuditUnavailable from error
    _append_to_spool(finished, path=path, max_bytes=max_bytes)
    return finished.event.id


def has_spooled_events(path: Path) -> bool:
    """Say whether something waits in the file."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def flush_spool(path: Path, *, now: datetime, timeout_seconds: float | None = None) -> int:
    """Move what waits in the file to the trail, in its order, and return how many events that were.

    Safe to kill, to repeat and to run several times at once: an event that is in the trail is not written again, and
    while one drains, others return 0. A line that is not as it was written goes to a file beside (`.altered`), with an
    alert; an event in it that is genuine all the same is moved. seconds: as `commit` takes them.
    Raises: AuditUnavailable, and then the file is as it was; OSError; KeyMissing.
    """
    if not has_spooled_events(path):
        return 0
    with _flush_lock(path) as is_alone:
        if not is_alone:
            return 0
        with _locked_file(path) as file:
            content = _read_file(file)
        lines = list(_parse_lines(content))
        events = [line.event for line in lines if line.event is not None]
        stored = {
            each.event.id
            for start in range(0, len(events), _BATCH_SIZE)
            for each in store_missing_events(events[start : start + _BATCH_SIZE], timeout_seconds=timeout_seconds)
        }
        bad = [each.raw for each in lines if not (each.is_linked and each.event and each.event.event.id in stored)]
        with _locked_file(path) as file:
            # What came meanwhile is linked to what is here: all of it stays for the next time, which skips this part.
            if _read_file(file) == content:
                if bad:
                    _store_altered_lines(path, bad, now=now)
                os.ftruncate(file, 0)
                os.fsync(file)
    return len(stored)


def _append_to_spool(authenticated_event: AuthenticatedEvent, *, path: Path, max_bytes: int) -> None:
    """Raises: AuditUnavailable."""
    try:
        with _locked_file(path) as file:
            _append_line(file, authenticated_event, max_bytes=max_bytes)
    except (OSError, KeyMissing) as error:
        raise AuditUnavailable("The spool can't be written.") from error
    logger.warning("The audit trail can't be written; event %s waits in the spool.", authenticated_event.event.id)


def _append_line(file: int, authenticated_event: AuthenticatedEvent, *, max_bytes: int) -> None:
    """Raises: AuditUnavailable; OSError, and then the line is gone again."""
    size = os.fstat(file).st_size
    start = max(size - _MAX_LINE_BYTES, 0)
    tail = os.pread(file, _MAX_LINE_BYTES, start)
    # Behind it is what a kill cut off, which is written over.
    end = start + tail.rfind(b"\n") + 1
    last = tail[: end - start].removesuffix(b"\n").rpartition(b"\n")[2]
    text = serialize_event(authenticated_event).encode()
    link = _compute_link(last.partition(b" ")[0], text, _get_mac_key(authenticated_event))
    line = b"%s %s\n" % (link, text)
    if len(line) > _MAX_LINE_BYTES or end + len(line) > max_bytes:
        raise AuditUnavailable("The spool is full.")
    try:
        if os.pwrite(file, line, end) != len(line):
            raise OSError("The disk is full.")
        os.fsync(file)
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, end)
        raise


def _parse_lines(content: bytes) -> Iterator[_SpoolLine]:
    before = b""
    for raw in content.split(b"\n")[:-1]:
        link, _, text = raw.partition(b" ")
        event = _find_authentic_event(text)
        yield _SpoolLine(
            raw,
            event,
            event is not None and hmac.compare_digest(link, _compute_link(before, text, _get_mac_key(event))),
        )
        before = link


def _find_authentic_event(text: bytes) -> AuthenticatedEvent | None:
    """Return the event whose MAC is ours. Raises: KeyMissing."""
    try:
        event = parse_event(text.decode())
    except ValueError:
        return None
    return event if has_valid_mac(event) else None


def _get_mac_key(authenticated_event: AuthenticatedEvent) -> bytes:
    """Requires: a key that is configured. Raises: KeyMissing."""
    ring = {key.id: key.material for key in keyring.get_keys("audit_mac")}
    return ring[authenticated_event.event.mac_key]


def _compute_link(previous_link: bytes, text: bytes, key: bytes) -> bytes:
    return hmac.digest(key, _LINK_DOMAIN + previous_link + b"\x00" + text, "sha256").hex().encode()


def _store_altered_lines(path: Path, lines: list[bytes], *, now: datetime) -> None:
    """Keep these lines for whoever finds out what happened, after the alert. Raises: AuditUnavailable; OSError."""
    logger.error("%d lines of the spool are not as they were written; they are kept in %s.altered.", len(lines), path)
    detail = {"rule": "spool_altered", "count": len(lines)}
    insert_events(
        [
            authenticate_event(
                NewEvent(action=Action.ALERT_RAISED, origin=Origin(), now=now, outcome="failure", detail=detail)
            )
        ]
    )
    with _locked_file(path.with_name(f"{path.name}.altered")) as aside:
        os.pwrite(aside, b"".join(line + b"\n" for line in lines), os.fstat(aside).st_size)
        os.fsync(aside)


def _read_file(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


@contextmanager
def _locked_file(path: Path) -> Iterator[int]:
    """Give the file, made for this account alone; nobody else of us reads or writes it meanwhile. Raises: OSError."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_size == 0:
            _sync_directory(path.parent)
        yield file
    finally:
        os.close(file)


def _sync_directory(directory: Path) -> None:
    """A file whose name is not on the disk is lost with the power, whatever was written to it."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _flush_lock(path: Path) -> Iterator[bool]:
    """Say whether nobody else drains; whoever is told so holds off the others, but not those who write."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)
