"""A new sign-in that a security event demands of a session, before its next guarded page.

A demand is stored with the time of the event, and met by any later authentication: it is never deleted by a use.
"""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from .. import conf
from ..audit.request_context import Actor
from ..replay.cache import is_remembered, remember_in_transaction

MEMORY = timedelta(days=366)
"""Longer than any session."""
_KIND = "sign_in_demand"
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def demand_new_sign_in(session_ids: Collection[uuid.UUID], *, since: datetime) -> None:
    """Demand of each session an authentication after that time. Requires: as `remember_in_transaction`."""
    remember_in_transaction(_KIND, [str(pk) for pk in session_ids], expires_at=since + MEMORY)


def is_new_sign_in_demanded(actor: Actor) -> bool:
    """Return whether the actor authenticated before the latest event that demands a new sign-in of this session.

    An unknown time of authentication counts as earlier. Takes one SELECT if a provider sends security events.
    """
    if not actor.origin.session or not conf.has_signals():
        return False
    return is_remembered(_KIND, [actor.origin.session], until=(actor.auth_time or _UNKNOWN_TIME) + MEMORY)
