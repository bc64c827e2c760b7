"""Report on stored claims: counts, ages, overdue claims, and claims that a legal hold preserves. No
values.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Min, Q
from django.db.models.functions import Coalesce

from .. import conf
from ..extensions import retention_guards
from .models import StoredClaim, get_session_claim_condition
from .retention_limits import UNDECLARED_MARGIN, find_limit, get_past_limit_condition

OVERDUE_TOLERANCE = timedelta(hours=1)
"""How late the periodic erasure may be before the report counts as late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClaimSummary:
    """The stored claims of one name and purpose."""

    name: str
    purpose: str
    count: int
    of_sessions: int
    """Claims of live sessions, which expire with them."""
    since: datetime
    """When the oldest one was obtained."""
    until: datetime | None
    """When the last one expires; None: all expire with their sessions."""
    overdue: int
    """Claims without a hold that have expired, or whose session is gone, and which should be erased
    already.
    """
    overdue_since: datetime | None
    """When the first of them expired; for one whose session is gone, when it was obtained."""
    held: int
    """Claims on legal hold."""
    held_past_their_time: int
    """Expired claims on legal hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionReport:
    """The stored claims at that time by name and purpose, and the number of active legal holds."""

    at: datetime
    claims: tuple[StoredClaimSummary, ...]
    holds: int

    @property
    def overdue(self) -> int:
        """The number of overdue claims."""
        return sum(summary.overdue for summary in self.claims)

    @property
    def overdue_since(self) -> datetime | None:
        """When the first overdue claim expired, or was obtained if its session is gone."""
        return min(
            (summary.overdue_since for summary in self.claims if summary.overdue_since),
            default=None,
        )

    @property
    def is_late(self) -> bool:
        """Whether that is longer ago than OVERDUE_TOLERANCE."""
        return self.overdue_since is not None and self.overdue_since < self.at - OVERDUE_TOLERANCE


def get_overdue_condition(*, now: datetime) -> Q:
    """Return the condition of a claim that should be erased already: it is expired or orphaned, and
    not on hold.
    """
    is_orphaned = get_session_claim_condition(is_session_live=False)
    is_expired = Q(expires_at__lte=now) | is_orphaned | get_past_limit_condition(now=now)
    return is_expired & (Q(held_until=None) | Q(held_until__lte=now))


def create_retention_report(*, now: datetime) -> RetentionReport:
    """Return the report, with two SELECTs; the table is read once, without the values."""
    overdue = get_overdue_condition(now=now)
    held = Q(held_until__gt=now)
    is_due = Q(expires_at__lte=now) | get_session_claim_condition(is_session_live=False)
    past_limit = get_past_limit_condition(now=now)
    rows = (
        StoredClaim.objects.order_by("name", "purpose")
        .values("name", "purpose")
        .annotate(
            count=Count("pk"),
            of_sessions=Count("pk", filter=get_session_claim_condition(is_session_live=True)),
            since=Min("obtained_at"),
            until=Max("expires_at"),
            overdue=Count("pk", filter=overdue),
            overdue_since=Min(Coalesce("expires_at", "obtained_at"), filter=overdue & is_due),
            past_limit_since=Min("obtained_at", filter=overdue & past_limit),
            held=Count("pk", filter=held),
            held_past_their_time=Count("pk", filter=held & (Q(expires_at__lte=now) | past_limit)),
        )
    )
    claims = tuple(_create_summary(**row) for row in rows)
    holds = sum(guard.count_holds(now=now) for guard in retention_guards)
    return RetentionReport(at=now, claims=claims, holds=holds)


def _create_summary(*, past_limit_since: datetime | None, **fields: Any) -> StoredClaimSummary:
    """Return the summary. past_limit_since: when the oldest claim was obtained that is past its
    current limit.
    """
    declaration = conf.claims().get(fields["name"])
    if past_limit_since is not None:
        # A claim without a declared retention counts as overdue after the margin only.
        limit = find_limit(declaration, has_session=False) or UNDECLARED_MARGIN
        ends = [fields["overdue_since"], past_limit_since + limit]
        fields["overdue_since"] = min(end for end in ends if end is not None)
    return StoredClaimSummary(**fields)
