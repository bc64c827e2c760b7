"""A new sign-in that a security event demands of a person, before their next guarded page.

A demand is stored with the time of the event, and met by any later authentication: it is never
deleted by a use. It is about the person, because single sign-on would start another session with
the doubtful authentication; and about each live session, because those that began before `signals`
was declared do not name their person. A person who is not linked yet is demanded by their digests,
which the first sign-in looks up.
"""

import uuid
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.views.decorators.debug import sensitive_variables

from ...audit.request_context import SUBJECT_KEY, Actor
from ...crypto import keyring
from ...extensions import SignIn, SignInObserver
from ...replay.cache import find_end_of_memory, is_remembered, remember, remember_in_transaction
from ...subjects.linking import list_subject_digests
from . import conf
from .declaration import SignalsDeclaration

MEMORY = timedelta(days=366)
"""Longer than any session here or at the provider."""
_KIND = "sign_in_demand"
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def demand_new_sign_in(
    *, session_ids: Collection[uuid.UUID], subjects: Collection[uuid.UUID], since: datetime
) -> None:
    """Demand an authentication after that time of the sessions, and of all sessions of the persons.

    subjects: the pseudonyms of the persons. Requires: as `remember_in_transaction`.
    """
    identifiers = [str(value) for value in (*session_ids, *subjects)]
    remember_in_transaction(_KIND, identifiers, expires_at=since + MEMORY)


def remember_demand(digests: Collection[str], *, since: datetime) -> None:
    """Commit the demand for a person who may have no pseudonym yet: `adopt_demands` finds it at a
    sign-in.

    digests: of (issuer, `sub`). Requires: as `remember`.
    """
    remember(_KIND, digests, expires_at=since + MEMORY)


def adopt_demands(subject: uuid.UUID, digests: Collection[str]) -> None:
    """Apply to the person the demands stored under their digests before they had a pseudonym.

    Takes one SELECT. Requires: as `remember_in_transaction`.
    """
    if (until := find_end_of_memory(_KIND, digests)) is not None:
        remember_in_transaction(_KIND, [str(subject)], expires_at=until)


class DemandObserver(SignInObserver):
    """Stores the pseudonym of the person in sessions of providers that send security events."""

    @sensitive_variables()
    def prepare_session(self, sign_in: SignIn) -> None:
        """Apply the demands that were stored before the person had a pseudonym."""
        if sign_in.provider.find_option(SignalsDeclaration) is not None:
            keys = keyring.get_keys("subject")
            digests = list_subject_digests(sign_in.provider.issuer, sign_in.sub, keys)
            adopt_demands(sign_in.subject.uuid, digests)

    def get_session_entries(self, sign_in: SignIn) -> Mapping[str, Any]:
        if sign_in.provider.find_option(SignalsDeclaration) is not None:
            return {SUBJECT_KEY: str(sign_in.subject.uuid)}
        return {}


DEMAND_OBSERVER = DemandObserver()


def is_new_sign_in_demanded(actor: Actor) -> bool:
    """Return whether the actor authenticated before the latest event that demands a new sign-in of
    them.

    An unknown time of authentication counts as earlier. Takes one SELECT if a provider sends
    security events.
    """
    if not actor.origin.session or not conf.signals():
        return False
    identifiers = []
    for value in (actor.origin.session, actor.subject):
        if value:
            identifiers.append(value)
    return is_remembered(_KIND, identifiers, until=(actor.auth_time or _UNKNOWN_TIME) + MEMORY)
