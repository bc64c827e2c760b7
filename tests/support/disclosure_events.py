"""Disclosures of a person's record in the audit log, and a project with resources of its users."""

import uuid
from datetime import timedelta
from typing import Any

from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.audit.recorder import record_many
from tests.support.claims_fixtures import NOW

DAY = timedelta(days=1)
STAFF, NURSE = "700001", "700002"
"""Keys of accounts that do not exist."""
RESOURCES = "tests.support.disclosure_events.resources_of"


def resources_of(user: Any) -> list[str]:
    return [f"Patient/{user.pk}", f"Chart/{user.pk}-1"]


def words_of(user: Any) -> list[str]:
    """Return an invalid resource reference."""
    return [f"the chart of {user.pk}"]


def look(*, by: object = "", count: int = 1, at: Any = NOW, **given: Any) -> list[uuid.UUID]:
    """Record disclosures a second apart, the last one at that time, and return their ids."""
    origin = Origin(actor=str(by), session="a-session")
    acts = [
        NewEvent(
            **{
                "action": Action.ACCESS_GRANTED,
                "origin": origin,
                "now": at - timedelta(seconds=count - 1 - number),
                "purpose": "TREAT",
                **given,
            }
        )
        for number in range(count)
    ]
    return list(record_many(acts))


def reveal(subject: object, *, by: object, claim: str = "birthdate", **given: Any) -> uuid.UUID:
    """Record that a claim of that subject was revealed."""
    (id_,) = look(
        **{"by": by, "action": Action.CLAIM_REVEALED, "subject": str(subject), "detail": {"claim": claim}} | given
    )
    return id_
