"""The spool: a local file for permits of an emergency while the audit log is unavailable, flushed
into it later.

Each line is `link event`: the event's canonical text with its own MAC, and HMAC-SHA256 under the
key of that MAC over the previous link and the text. A line that is altered, removed, inserted or
moved is detected, and an alert is raised. NOT detected: an attacker with write access who removes
whole lines at the end. A line that a kill truncated has no line end, and permitted nothing. Several
processes may share a file. Requires: POSIX (flock).
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

from ...audit.events import (
    Action,
    AuthenticatedEvent,
    NewEvent,
    Origin,
    parse_event,
    serialize_event,
)
from ...audit.storage import (
    EVENT_ERRORS,
    authenticate_event,
    has_valid_mac,
    insert_events,
    logger,
    store_missing_events,
)
from ...crypto import keyring
from ...errors import AuditUnavailable, KeyMissing

MAX_SPOOL_BYTES = 4 * 1024 * 1024
"""Size limit of the file: about 5,000 permits."""
_MAX_LINE_BYTES = 64 * 1024
_BATCH_SIZE = 500
_LINK_DOMAIN = b"django_phi_oidc spool\x00"


class _SpoolLine(NamedTuple):
    raw: bytes
    event: AuthenticatedEvent | None
    """Set if the event's own MAC is valid."""
    is_linked: bool


def record_or_spool(new_event: NewEvent, *, path: Path, timeout_seconds: float) -> bool:
    """Commit the event to the audit log, or write it to the spool. Return whether it is in the
    audit log.

    timeout_seconds: as for `insert_events`. The event has the same id in both places, so that an
    event whose commit was not noticed is not written again. Raises: AuditUnavailable, and then
    nothing may be permitted.
    """
    try:
        authenticated = authenticate_event(new_event)
        try:
            insert_events([authenticated], timeout_seconds=timeout_seconds)
        except AuditUnavailable:
            _append_to_spool(authenticated, path=path, max_bytes=MAX_SPOOL_BYTES)
            return False
    except (*EVENT_ERRORS, KeyMissing) as error:
        raise AuditUnavailable from error
    return True


def spool_event(new_event: NewEvent, *, path: Path, max_bytes: int = MAX_SPOOL_BYTES) -> uuid.UUID:
    """Write the event to disk and return its id. A later flush moves it to the audit log.

    Raises: AuditUnavailable if the file is full or cannot be written, and then nothing may be
    permitted.
    """
    try:
        authenticated = authenticate_event(new_event)
    except KeyMissing as error:
        raise AuditUnavailable from error
    _append_to_spool(authenticated, path=path, max_bytes=max_bytes)
    return authenticated.event.id


def has_spooled_events(path: Path) -> bool:
    """Whether the file has events."""
    with suppress(OSError):
        return path.stat().st_size > 0
    return False


def flush_spool(path: Path, *, now: datetime, timeout_seconds: float | None = None) -> int:
    """Move the events of the file to the audit log, in order, and return how many were moved.

    Safe to kill, to repeat and to run concurrently: stored events are not written again, and while
    one process flushes, others return 0. A line that is not as it was written goes to a second file
    (`.altered`), and an alert is raised. If the event in such a line has a valid MAC, it is moved
    all the same. timeout_seconds: as for `insert_events`.
    Raises: AuditUnavailable, and then the file is unchanged; OSError; KeyMissing.
    """
    if not has_spooled_events(path):
        return 0
    with _flush_lock(path) as is_locked:
        if not is_locked:
            return 0
        with _locked_file(path) as file:
            content = _read_file(file)
        lines = list(_parse_lines(content))
        events = []
        for line in lines:
            if line.event is not None:
                events.append(line.event)
        stored_ids = set()
        for start in range(0, len(events), _BATCH_SIZE):
            for item in store_missing_events(
                events[start : start + _BATCH_SIZE], timeout_seconds=timeout_seconds
            ):
                stored_ids.add(item.event.id)
        bad = []
        for line in lines:
            if not (line.is_linked and line.event and line.event.event.id in stored_ids):
                bad.append(line.raw)
        with _locked_file(path) as file:
            # New lines are linked to these ones. Then everything stays for the next flush, which
            # skips stored events.
            if _read_file(file) == content:
                if bad:
                    _store_altered_lines(path, bad, now=now)
                os.ftruncate(file, 0)
                os.fsync(file)
    return len(stored_ids)


def _append_to_spool(item: AuthenticatedEvent, *, path: Path, max_bytes: int) -> None:
    try:
        with _locked_file(path) as file:
            _append_line(file, item, max_bytes=max_bytes)
    except (OSError, KeyMissing) as error:
        raise AuditUnavailable("The spool can't be written.") from error
    logger.warning("The audit log can't be written; event %s waits in the spool.", item.event.id)


def _append_line(file: int, item: AuthenticatedEvent, *, max_bytes: int) -> None:
    """Raises: AuditUnavailable; OSError, and then the line is removed again."""
    size = os.fstat(file).st_size
    start = max(size - _MAX_LINE_BYTES, 0)
    tail = os.pread(file, _MAX_LINE_BYTES, start)
    # A line that a kill truncated, after the last line end, is overwritten.
    end = start + tail.rfind(b"\n") + 1
    last_line = tail[: end - start].removesuffix(b"\n").rpartition(b"\n")[2]
    text = serialize_event(item).encode()
    link = _compute_link(last_line.partition(b" ")[0], text, _get_mac_key(item))
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
    previous_link = b""
    for raw in content.split(b"\n")[:-1]:
        link, _, text = raw.partition(b" ")
        event = _find_authentic_event(text)
        if event:
            expected = _compute_link(previous_link, text, _get_mac_key(event))
        else:
            expected = b""

        yield _SpoolLine(raw, event, event is not None and hmac.compare_digest(link, expected))
        previous_link = link


def _find_authentic_event(text: bytes) -> AuthenticatedEvent | None:
    """Return the event if its MAC is valid. Raises: KeyMissing."""
    try:
        item = parse_event(text.decode())
    except ValueError:
        return None
    return item if has_valid_mac(item) else None


def _get_mac_key(item: AuthenticatedEvent) -> bytes:
    """Requires: a configured key. Raises: KeyMissing."""
    return {key.id: key.material for key in keyring.get_keys("audit_mac")}[item.event.mac_key]


def _compute_link(previous_link: bytes, text: bytes, key: bytes) -> bytes:
    return hmac.digest(key, _LINK_DOMAIN + previous_link + b"\x00" + text, "sha256").hex().encode()


def _store_altered_lines(path: Path, lines: list[bytes], *, now: datetime) -> None:
    """Raise an alert, then append the lines to the `.altered` file for analysis. Raises:
    AuditUnavailable; OSError.
    """
    logger.error(
        "%d lines of the spool are not as they were written; they are in %s.altered.",
        len(lines),
        path,
    )
    detail = {"rule": "spool_altered", "count": len(lines)}
    insert_events(
        [authenticate_event(NewEvent(Action.ALERT_RAISED, Origin(), now, "failure", detail=detail))]
    )
    with _locked_file(path.with_name(f"{path.name}.altered")) as file:
        os.pwrite(file, b"".join(line + b"\n" for line in lines), os.fstat(file).st_size)
        os.fsync(file)


def _read_file(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


@contextmanager
def _locked_file(path: Path) -> Iterator[int]:
    """Open the file, created with mode 0600, and lock it against other processes. Raises:
    OSError.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_size == 0:
            # Make the name of a new file durable. Otherwise a power failure loses the file with its
            # content.
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        yield file
    finally:
        os.close(file)


@contextmanager
def _flush_lock(path: Path) -> Iterator[bool]:
    """Yield whether this process may flush. Excludes other flushes, but not writers."""
    lock = os.open(
        path.with_name(f"{path.name}.lock"),
        os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
    )
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)
