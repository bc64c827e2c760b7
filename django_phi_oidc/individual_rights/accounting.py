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

from ..access.policy import PATIENT_REQUEST, PURPOSES, is_resource_reference
from ..audit.actions import DISCLOSURE_ACTIONS
from ..audit.events import Action, NewEvent, Origin, compute_resource_pseudonym, get_registered_disclosure_actions
from ..audit.models import AuditEvent
from ..audit.recorder import record_many
from ..audit.search import PAGE_SIZE, EventQuery, KeysetPage, find_oldest_unarchived_time, list_events_of_query
from ..crypto import keyring
from ..subjects.models import PairwiseSubject

_BATCH_SIZE = 1000
_ACCOUNTING_YEARS = 6


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
class DisclosureAccounting:
    """The looks at one person's record since a moment. `account` makes it, once that is in the trail."""

    user_pk: str
    """The primary key as text."""
    since: datetime
    includes_own: bool
    subject_uuids: tuple[str, ...]
    resource_names: Mapping[str, str]
    """What the person's are called in the trail, each with its name in the project."""

    def get_page(
        self, *, before: uuid.UUID | None = None, after: uuid.UUID | None = None, size: int = PAGE_SIZE
    ) -> KeysetPage[Disclosure, uuid.UUID]:
        """Return up to size looks, newest first: the newest, or those next before an event, or next after one.

        What an event says is taken as it is, its MAC is NOT checked. Raises: AuditUnavailable, RowUnreadable.
        """
        about = EventQuery(
            actions=sorted(DISCLOSURE_ACTIONS | get_registered_disclosure_actions()),
            subjects=self.subject_uuids,
            resources=self.resource_names,
            since=self.since,
            excluded_actor="" if self.includes_own else self.user_pk,
        )
        found = list_events_of_query(about, before=before, after=after, page_size=size)
        return KeysetPage(
            rows=tuple(map(self._create_disclosure, found.rows)), newer_key=found.newer_key, older_key=found.older_key
        )

    def iter_pages(self) -> Iterator[tuple[Disclosure, ...]]:
        """Yield all looks, newest first, a thousand at a time. Raises: AuditUnavailable, RowUnreadable."""
        found = self.get_page(size=_BATCH_SIZE)
        yield found.rows
        while found.older_key is not None:
            found = self.get_page(before=found.older_key, size=_BATCH_SIZE)
            yield found.rows

    def find_available_since(self) -> datetime | None:
        """Return when it begins where what was before is in archives alone; None: it is whole.

        Raises: AuditUnavailable, RowUnreadable.
        """
        begins = find_oldest_unarchived_time()
        return begins if begins and begins > self.since else None

    def _create_disclosure(self, event: AuditEvent) -> Disclosure:
        detail = _parse_detail(event)
        claims = detail.get("claims", detail.get("claim", []))
        return Disclosure(
            id=event.id,
            occurred_at=event.occurred_at,
            action=event.action,
            actor=event.actor,
            is_own=event.actor == self.user_pk,
            purpose=event.purpose,
            resource=self.resource_names.get(event.resource, event.resource),
            # An act of the project's own may have something else there.
            claims=tuple(map(str, claims if isinstance(claims, list) else [claims])),
            emergency=str(detail.get("emergency", "")),
        )


def create_accounting(
    user: AbstractBaseUser,
    *,
    resources: Iterable[str] = (),
    since: datetime,
    include_own: bool,
    origin: Origin,
    now: datetime,
) -> DisclosureAccounting:
    """Return what tells who looked at user's record, after the events that it was told are committed.

    resources: `Type/id` of what is user's in the project. include_own: what the person looked at as well, which
    164.528(a)(1)(ii) leaves out. Of a link that was deleted nothing is told: it may have been somebody else's.
    Raises: AuditUnavailable, and then nothing may be told; ImproperlyConfigured where a resource is none.
    """
    own = f"user/{user.pk}"
    named = [own, *_validate_resources(resources)]
    uuids = PairwiseSubject.objects.filter(user=user.pk).order_by("pk").values_list("uuid", flat=True)
    subjects = tuple(str(each) for each in uuids)
    record_many(
        [
            NewEvent(
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
    return DisclosureAccounting(
        user_pk=str(user.pk),
        since=since,
        includes_own=include_own,
        subject_uuids=subjects,
        resource_names={spelled: each for each in named for spelled in _iter_trail_names(each)},
    )


def _iter_trail_names(resource: str) -> Iterator[str]:
    """Yield its possible names in the log: AUDIT['resource_ids'] and the oldest key may have changed."""
    yield resource
    for key in keyring.get_keys("audit_mac"):
        yield compute_resource_pseudonym(resource, key=key.material)


def _parse_detail(event: AuditEvent) -> dict[str, Any]:
    try:
        detail = json.loads(event.detail)
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}


def find_actor_accounts(disclosures: Collection[Disclosure]) -> dict[str, AbstractBaseUser]:
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


def get_display_name(account: AbstractBaseUser | None) -> str:
    """Return what somebody who looked is called; empty for an account without a name, or that was deleted."""
    full_name = getattr(account, "get_full_name", None)
    return str(full_name()).strip() if full_name else ""


def get_accounting_start(now: datetime) -> datetime:
    """Return how far back an accounting reaches. Spec: 45 CFR 164.528(a)(1)."""
    try:
        return now.replace(year=now.year - _ACCOUNTING_YEARS)
    except ValueError:
        return now.replace(year=now.year - _ACCOUNTING_YEARS, day=28)


def _validate_resources(resources: Any) -> list[str]:
    """An accounting that lacked what can't be found would be none."""
    found = [] if isinstance(resources, str) else list(resources)
    if isinstance(resources, str) or not all(map(is_resource_reference, found)):
        raise ImproperlyConfigured("PHI_OIDC['PATIENT_RESOURCES'] must return a list of Type/id.")
    return found
