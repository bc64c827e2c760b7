"""The retention keys in the retention report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from .key_names import parse_key_date
from .key_store import get_store
from .models import UnusedPersonKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionKeySummary:
    """The existing retention keys of days and holds."""

    count: int
    oldest: date | None
    """The day of the oldest one; None: there are only keys of holds."""
    of_holds: int
    of_erased_persons: int
    """Keys of erased persons that are not destroyed yet. Other keys of persons are not counted."""

    def get_row(self) -> Mapping[str, Any]:
        return asdict(self)

    def list_lines(self) -> list[str]:
        if self.oldest:
            oldest = f", the oldest of {self.oldest}"
        else:
            oldest = ""

        days_and_holds = (
            f"{self.count} retention keys of days and holds "
            f"exist{oldest}; {self.of_holds} belong to legal holds."
        )
        return [
            days_and_holds,
            f"{self.of_erased_persons} retention keys of erased persons are not destroyed yet.",
        ]


def create_key_summary() -> RetentionKeySummary:
    """Return a summary of the retention keys. Raises: KeyMissing."""
    days = [parse_key_date(name) for name in get_store().names()]
    dated = []
    for day in days:
        if day is not None:
            dated.append(day)
    return RetentionKeySummary(
        count=len(days),
        oldest=min(dated, default=None),
        of_holds=len(days) - len(dated),
        of_erased_persons=UnusedPersonKey.objects.count(),
    )
