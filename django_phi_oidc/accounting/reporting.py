"""What the trail tells of looks at a person's record, after the event that it was told.

Spec: 45 CFR 164.528. Looks for treatment, payment and operations are in it, which the rule would let us leave out.
"""

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured, ValidationError

from .. import keyring
from ..access.policy import PATIENT_REQUEST, PURPOSES, is_resource
from ..audit.browsing import SIZE, About, Page, begins_at, page_about
from ..audit.events import Act, Action, Origin, keyed_id, registered_disclosures
from ..audit.models import AuditEvent
from ..audit.recording import record_many
from ..audit.vocabulary import LOOKS
from ..subjects.models import PairwiseSubject

_MANY = 1000
_YEARS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """One look: who, when, for what, at what."""

    id: uuid.UUID
    """Of the event."""
    occurred_at: datetime
    action: str
    actor: str
    """The primary key as text; empty: it was done by a command on the server."""
    is_own: bool
    """It was the person."""
    purpose: str
    """HL7 PurposeOfUse code, or empty."""
    resource: str
    """`Type/id` as the project names it, where ids are keyed, too; empty for a claim."""
    claims: tuple[str, ...]
    emergency: str
    """The id of the emergency access that it was permitted by, or empty."""

    @property
    def purpose_name(self) -> str:
        """What the code says in English."""
        return PURPOSES.get(self.purpose, self.purpose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """The looks at one person's record since a moment. `account` makes it, once that is in the trail."""

    person: str
    """The primary key as text."""
    since: datetime
    includes_own: bool
    subjects: tuple[str, ...]
    resources: Mapping[str, str]
    """What the person's are called in the trail, each with its name in the project."""

    def page(
        self, *, before: uuid.UUID | None = None, after: uuid.UUID | None = None, size: int = SIZE
    ) -> Page[Disclosure, uuid.UUID]:
        """Return up to size looks, newest first: the newest, or those next before an event, or next after one.

        What an event says is taken as it is, its MAC is NOT checked. Raises: AuditUnavailable, RowUnreadable.
        """
        about = About(
            actions=sorted(LOOKS | registered_disclosures()),
            subjects=self.subjects,
            resources=self.resources,
            since=self.since,
            unless_actor="" if self.includes_own else self.person,
        )
        found = page_about(about, before=before, after=after, size=size)
        return Page(rows=tuple(map(self._told, found.rows)), newer=found.newer, older=found.older)

    def pages(self) -> Iterator[tuple[Disclosure, ...]]:
        """Yield all looks, newest first, a thousand at a time. Raises: AuditUnavailable, RowUnreadable."""
        found = self.page(size=_MANY)
        yield found.rows
        while found.older is not None:
            found = self.page(before=found.older, size=_MANY)
            yield found.rows

    def begins_at(self) -> datetime | None:
        """Return when it begins where what was before is in archives alone; None: it is whole.

        Raises: AuditUnavailable, RowUnreadable.
        """
        begins = begins_at()
        return begins if begins and begins > self.since else None

    def _told(self, event: AuditEvent) -> Disclosure:
        detail = _detail_of(event)
        claims = detail.get("claims", detail.get("claim", []))
        return Disclosure(
            id=event.id,
            occurred_at=event.occurred_at,
            action=event.action,
            actor=event.actor,
            is_own=event.actor == self.person,
            purpose=event.purpose,
            resource=self.resources.get(event.resource, event.resource),
            # An act of the project's own may have something else there.
            claims=tuple(map(str, claims if isinstance(claims, list) else [claims])),
            emergency=str(detail.get("emergency", "")),
        )


def account(
    user: AbstractBaseUser,
    *,
    resources: Iterable[str] = (),
    since: datetime,
    include_own: bool,
    origin: Origin,
    now: datetime,
) -> Accounting:
    """Return what tells who looked at user's record, after the events that it was told are committed.

    resources: `Type/id` of what is user's in the project. include_own: what the person looked at as well, which
    164.528(a)(1)(ii) leaves out. Of a link that was deleted nothing is told: it may have been somebody else's.
    Raises: AuditUnavailable, and then nothing may be told; ImproperlyConfigured where a resource is none.
    """
    own = f"user/{user.pk}"
    named = [own, *_checked(resources)]
    uuids = PairwiseSubject.objects.filter(user=user.pk).order_by("pk").values_list("uuid", flat=True)
    subjects = tuple(str(each) for each in uuids)
    record_many(
        [
            Act(
                action=Action.SUBJECT_ACCOUNTED,
                origin=origin,
                now=now,
                subject=subject,
                purpose=PATIENT_REQUEST,
                resource=own,
                detail={"since": since.isoformat(timespec="seconds")},
            )
            for subject in subjects or ("",)
        ]
    )
    return Accounting(
        person=str(user.pk),
        since=since,
        includes_own=include_own,
        subjects=subjects,
        resources={spelled: each for each in named for spelled in _spellings(each)},
    )


def _spellings(resource: str) -> Iterator[str]:
    """Yield what the trail may call it: RESOURCE_IDS, and which key is the oldest, need not be what they were."""
    yield resource
    for key in keyring.keys("AUDIT_MAC_KEYS"):
        yield keyed_id(resource, key=key.material)


def _detail_of(event: AuditEvent) -> dict[str, Any]:
    try:
        detail = json.loads(event.detail)
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}


def accounts_of(disclosures: Collection[Disclosure]) -> dict[str, AbstractBaseUser]:
    """Return the accounts that looked, by the primary key as the trail has it; one that was deleted is missing."""
    model = get_user_model()
    keys = {}
    for actor in {each.actor for each in disclosures} - {""}:
        try:
            key = model._meta.pk.to_python(actor)
            model._meta.pk.run_validators(key)
        except ValidationError:
            continue
        keys[key] = actor
    return {keys[user.pk]: user for user in model._default_manager.filter(pk__in=keys)} if keys else {}


def name_of(account: AbstractBaseUser | None) -> str:
    """Return what somebody who looked is called; empty for an account without a name, or that was deleted."""
    full_name = getattr(account, "get_full_name", None)
    return str(full_name()).strip() if full_name else ""


def six_years_before(now: datetime) -> datetime:
    """Return how far back an accounting reaches. Spec: 45 CFR 164.528(a)(1)."""
    try:
        return now.replace(year=now.year - _YEARS)
    except ValueError:
        return now.replace(year=now.year - _YEARS, day=28)


def _checked(resources: Any) -> list[str]:
    """An accounting that lacked what can't be found would be none."""
    found = [] if isinstance(resources, str) else list(resources)
    if isinstance(resources, str) or not all(map(is_resource, found)):
        raise ImproperlyConfigured("PHI_OIDC['PATIENT_RESOURCES'] must return a list of Type/id.")
    return found
