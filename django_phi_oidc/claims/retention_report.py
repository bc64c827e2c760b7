"""What is held, since when and until when, how much of it is overdue, and how much a legal hold keeps: counts alone."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Count, Max, Min, Q

from ..crypto import retention_keys
from .legal_holds import list_active_holds
from .models import StoredClaim

OVERDUE_TOLERANCE = timedelta(hours=1)
"""How late the scrub may be before somebody should look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClaimSummary:
    """The claims of one name that are held for one purpose."""

    name: str
    purpose: str
    count: int
    of_sessions: int
    """Those that go with a session that lives, and have no other end."""
    since: datetime
    """When the oldest one came."""
    until: datetime | None
    """When the time of the last one is over; None: they all go with their sessions."""
    overdue: int
    """Those whose time is over, and that nothing keeps: they should be gone."""
    overdue_since: datetime | None
    held: int
    """Those that a legal hold keeps."""
    held_past_their_time: int
    """Those that nothing but a legal hold keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionReport:
    """What is held at that time, by name and purpose, and how many legal holds last."""

    at: datetime
    claims: tuple[StoredClaimSummary, ...]
    holds: int

    @property
    def overdue(self) -> int:
        """How many claims should be gone."""
        return sum(each.overdue for each in self.claims)

    @property
    def overdue_since(self) -> datetime | None:
        """When the first of these should have gone."""
        return min((each.overdue_since for each in self.claims if each.overdue_since is not None), default=None)

    @property
    def is_late(self) -> bool:
        """Whether that is longer ago than TOLERANCE."""
        return self.overdue_since is not None and self.overdue_since < self.at - OVERDUE_TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionKeySummary:
    """The retention keys that there are."""

    count: int
    oldest: date | None
    """The day of the oldest one; None: there is none but those of holds."""
    of_holds: int


def get_overdue_condition(*, now: datetime) -> Q:
    """Return the condition of a claim whose time is over, and that no legal hold keeps."""
    return Q(expires_at__lte=now) & (Q(held_until=None) | Q(held_until__lte=now))


def create_retention_report(*, now: datetime) -> RetentionReport:
    """Return what is held now, by two SELECTs however much that is; the table is read once. No value is looked at."""
    overdue, held = get_overdue_condition(now=now), Q(held_until__gt=now)
    found = (
        StoredClaim.objects.order_by("name", "purpose")
        .values("name", "purpose")
        .annotate(
            count=Count("pk"),
            of_sessions=Count("pk", filter=Q(expires_at=None)),
            since=Min("obtained_at"),
            until=Max("expires_at"),
            overdue=Count("pk", filter=overdue),
            overdue_since=Min("expires_at", filter=overdue),
            held=Count("pk", filter=held),
            held_past_their_time=Count("pk", filter=held & Q(expires_at__lte=now)),
        )
    )
    claims = tuple(StoredClaimSummary(**row) for row in found)
    return RetentionReport(at=now, claims=claims, holds=list_active_holds(now=now).count())


def find_key_summary() -> RetentionKeySummary | None:
    """Return which retention keys there are; None when there are none to be. Raises: KeyMissing."""
    if not retention_keys.is_enabled():
        return None
    days = [retention_keys.parse_key_date(name) for name in retention_keys.get_store().names()]
    dated = [day for day in days if day is not None]
    return RetentionKeySummary(count=len(days), oldest=min(dated, default=None), of_holds=len(days) - len(dated))
