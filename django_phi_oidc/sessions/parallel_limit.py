"""The limit of parallel sessions of a user: a further sign-in ends the oldest ones. Spec: ASVS 5.0
7.1.2.
"""

from datetime import timedelta
from typing import Any

from .. import conf
from .._internal import clock
from ..audit.events import Origin
from .lifecycle import end_sessions, list_revocation_ids
from .models import EndReason, OIDCSession
from .tasks import revoke_after_commit

_CLOCK_DIFFERENCE = timedelta(seconds=1)
"""Between two servers of the portal whose clocks are correct. Concurrent sign-ins must agree on
their order.
"""


def end_surplus_sessions(user_pk: Any, *, origin: Origin) -> None:
    """End the oldest live sessions of the user beyond SESSIONS["max_parallel"]; no statement
    without a limit.

    Requires: the new session is committed. Then the last of several concurrent sign-ins sees all
    their sessions, and each ends only sessions that have enough newer ones, so that no lock is
    needed.
    """
    most = conf.max_parallel_sessions()
    if most is None:
        return
    rows = list(OIDCSession.objects.live().filter(user=user_pk).values_list("started_at", "pk"))
    # After the query: on this server's clock, no session began later. One that did is from a server
    # with a fast clock, and counts as old. Otherwise the sign-in would end its own session.
    now = clock.now()
    rows.sort(key=lambda row: (row[0] <= now + _CLOCK_DIFFERENCE, *row), reverse=True)
    surplus = [pk for _started_at, pk in rows[most:]]
    if surplus:
        ended = end_sessions(surplus, EndReason.PARALLEL_LIMIT, origin=origin, now=now)
        revoke_after_commit(list_revocation_ids(ended))
