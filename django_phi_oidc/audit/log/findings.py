"""The kinds of faults that a verification reports. No Django."""

import uuid
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FindingKind(StrEnum):
    """The kinds of findings, described in docs/reference/findings.md."""

    EVENT_ALTERED = "event_altered"
    EVENT_MISSING = "event_missing"
    EVENT_FORGED = "event_forged"
    EVENT_UNSEALED = "event_unsealed"
    EVENT_KEY_UNKNOWN = "event_key_unknown"
    TREE_ALTERED = "tree_altered"
    LOG_TRUNCATED = "log_truncated"
    FORK_UNDECLARED = "fork_undeclared"
    FORK_DECLARED = "fork_declared"
    PROTECTION_ALTERED = "protection_altered"
    CHECKPOINT_UNWITNESSED = "checkpoint_unwitnessed"
    WITNESS_REFUSED = "witness_refused"
    LINE_UNREADABLE = "line_unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFinding:
    """Something that is not as it was sealed."""

    kind: FindingKind
    text: str
    event_id: str = ""
    leaf_index: int | None = None
    tree_size: int | None = None
    """Of the checkpoint concerned."""
    is_fault: bool = True
    """False for a restore that the operator has named, and for a line of a copy that a crash can
    have cut.
    """

    def render_line(self) -> str:
        """Return the finding as a line of text."""
        places = {"event": self.event_id, "leaf": self.leaf_index, "checkpoint": self.tree_size}
        words = []
        for name, value in places.items():
            if value not in ("", None):
                words.append(f"{name} {value}")
        return f"{self.kind.value}: {' '.join(words)}: {self.text}"


@dataclass(slots=True)
class VerificationSummary:
    """The totals of a verification so far."""

    tree_size: int = 0
    """Of the newest valid checkpoint."""
    verified_size: int = 0
    verified_root: bytes = b""
    """The newest signed root to which the leaves led, and the number of these leaves."""
    first: int = 0
    """The leaf with which it began; after 0, an earlier verification had verified the leaves
    before.
    """
    events: int = 0
    checkpoints: int = 0
    waiting: int = 0
    """Events that are not sealed yet, and not overdue."""
    archived: int = 0
    """Events that were read from an archive."""
    signed_late: int = 0
    """Events that got their MAC from another process than the one that wrote them."""
    fault_count: int = 0
    """Findings that are faults."""
    counts_by_kind: Counter[FindingKind] = field(default_factory=Counter)
    unproven: str = ""
    """Of a copy without faults: what no valid checkpoint proves, although one should; a sentence
    without a period.
    """

    def add(self, finding: LogFinding) -> None:
        """Count a finding."""
        self.counts_by_kind[finding.kind] += 1
        self.fault_count += finding.is_fault

    def build_event_detail(self) -> dict[str, Any]:
        """Return the detail of the `audit.verified` event."""
        kinds = sorted(kind.value for kind in self.counts_by_kind)
        detail = {
            "tree_size": self.tree_size,
            "events": self.events,
            "findings": self.fault_count,
            "kinds": kinds,
        }
        return detail | ({"first": self.first} if self.first else {})


def format_event_id(id_bytes: bytes) -> str:
    """Return an event's id as text; an id that is not a UUID as it is in the row."""
    if len(id_bytes) == 16:
        return str(uuid.UUID(bytes=id_bytes))
    return id_bytes.decode("utf-8", "replace")
