"""The items of the log: events in their sealed order, and checkpoints between them. No Django."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from ..events import AuthenticatedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedEvent:
    """An event and its leaf."""

    leaf_index: int
    """-1 for an event that is not sealed yet: possible in exports, never for sinks."""
    leaf_hash: bytes
    authenticated_event: AuthenticatedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCheckpoint:
    """A checkpoint, after the last of the tree_size events that it covers."""

    tree_size: int
    root_hash: bytes
    epoch: int
    sealed_at: datetime
    note: str
    """C2SP tlog-checkpoint, signed."""

    @property
    def origin(self) -> str:
        """The log's name, the first line of the note."""
        return self.note.partition("\n")[0]


LogItem = SealedEvent | SealedCheckpoint
LogFormat = Literal["json", "ocsf", "cef", "fhir"]


def format_instant(time: datetime) -> str:
    """Return the time in UTC as RFC 3339, with microseconds and `Z`."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def epoch_milliseconds(time: datetime) -> int:
    return (time - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
