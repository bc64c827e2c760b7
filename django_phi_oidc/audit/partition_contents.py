"""Which leaves a partition of the events, or of the leaves, has. For the owner of the tables,
before it is detached.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connections

from .partitions import DEFAULT_PARTITION, Partition, list_partitions
from .router import AUDIT_ALIAS


def list_leaves_of(partition: Partition, *, removed: Sequence[Partition]) -> list[tuple[int, int]]:
    """Return the leaves of a partition of the leaves as ascending ranges, each with its end after
    the last index.

    Late events have leaves between those of other partitions. Empty if the log has events of its
    months, except in the partitions `removed` of the events. Reads all its indexes. Requires: not
    the default partition.
    """
    first, end = partition.bounds
    kept = []
    for other in list_partitions():
        if other.end_id and other not in removed:
            kept.append(other)
    if any(other.bounds[1] > first and other.bounds[0] < end for other in kept):
        return []
    with connections[AUDIT_ALIAS].cursor() as cursor:
        # In a range of consecutive indexes, the difference to the row number is the same.
        cursor.execute(
            "SELECT min(leaf_index), max(leaf_index) + 1 FROM "  # noqa: S608 -- a name of the catalogue
            "(SELECT leaf_index, leaf_index - row_number() OVER (ORDER BY leaf_index) AS range "
            f"FROM {partition.name} WHERE NOT EXISTS (SELECT 1 FROM {DEFAULT_PARTITION} WHERE id "
            ">= %s AND id < %s)) AS leaves GROUP BY range ORDER BY 1",
            [first, end],
        )
        leaves = []
        for start, stop in cursor.fetchall():
            leaves.append((int(start), int(stop)))
        return leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavesOfEvents:
    """The leaves of the events of a partition."""

    first: int
    """The smallest index; -1 without a leaf."""
    last: int
    """The largest index; -1 without a leaf."""
    leafless_count: int
    """The number of events without a leaf."""


def find_leaves_of_events(partition: Partition) -> LeavesOfEvents:
    """Return which leaves the events of the partition have.

    Reads all of them. Requires: not the default partition.
    """
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(min(leaf_index), -1), coalesce(max(leaf_index), -1) "
            "FROM phi_oidc_audit_auditleaf WHERE event_id >= %s AND event_id < %s",
            partition.bounds,
        )
        first, last = cursor.fetchone()
        cursor.execute(
            f"SELECT count(*) FROM {partition.name} e WHERE NOT EXISTS "  # noqa: S608 -- a name of the catalogue
            "(SELECT 1 FROM phi_oidc_audit_auditleaf l WHERE l.event_id = e.id)"
        )
        (leafless_count,) = cursor.fetchone()
    return LeavesOfEvents(first=int(first), last=int(last), leafless_count=int(leafless_count))
