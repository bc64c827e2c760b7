"""What is delivered: the events of the log in their sealed order, and its checkpoints between them. No Django."""

from dataclasses import dataclass
from datetime import datetime

from ..events import AuthenticatedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedEvent:
    """An event with its place in the log."""

    leaf_index: int
    """-1 where an event is told of that is not sealed yet: in an export, never to a sink."""
    leaf_hash: bytes
    authenticated_event: AuthenticatedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCheckpoint:
    """A checkpoint; it follows the last of the tree_size events that it covers."""

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
