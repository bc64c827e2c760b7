"""When a stored claim expires: by its retention when it was stored, or by the declared one if that
ends earlier.
"""

from datetime import datetime, timedelta

from django.db.models import Q

from .. import conf
from ..config.claims import ClaimDeclaration
from .models import NO_SESSION, StoredClaim

UNDECLARED_MARGIN = timedelta(days=1)
"""A claim without a declared retention is erased so long after it was obtained. During a
deployment, a server with the old settings does not know a claim that a server with the new ones has
just stored.
"""


def find_limit(declaration: ClaimDeclaration | None, *, has_session: bool) -> timedelta | None:
    """Return how long after it was obtained a claim may be used by its declaration; None: until its
    session ends.

    Zero: it is not declared, or has no retention. has_session: it ends with its session at the
    latest.
    """
    retention = None
    if declaration:
        retention = declaration.retention

    if retention == "session":
        # Which session brought the claim is unknown, but none lasts longer.
        if has_session:
            return None
        return conf.absolute_timeout()
    return retention or timedelta(0)


def get_expiry(claim: StoredClaim, declaration: ClaimDeclaration | None) -> datetime:
    """Return when the claim expires; FOREVER: with its session. declaration: the current one."""
    limit = find_limit(declaration, has_session=claim.session != NO_SESSION)
    if limit is None:
        return claim.ends_at
    return min(claim.ends_at, claim.obtained_at + limit)


def get_past_limit_condition(*, now: datetime) -> Q:
    """Return the condition of a claim that is stored for longer than it may be, by the declarations
    then or now.
    """
    stored = [claim for claim in conf.claims().values() if claim.retention is not None]
    # An `expires_at` after `retained_until` was not written by this package.
    condition = Q(retained_until__lte=now)
    condition |= ~Q(name__in=[claim.name for claim in stored]) & Q(
        obtained_at__lte=now - UNDECLARED_MARGIN
    )
    for claim in stored:
        limit = find_limit(claim, has_session=False) or timedelta(0)
        is_past_limit = Q(name=claim.name, obtained_at__lte=now - limit)
        if claim.retention == "session":
            is_past_limit &= Q(session=NO_SESSION)
        condition |= is_past_limit
    return condition
