"""Accounting of disclosures: who accessed a person's record, when, and for what purpose. Spec: 45
CFR 164.528.

Disclosures for treatment, payment and health care operations are included, although the rule
exempts them.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from ...access.policy import is_resource_reference
from ...audit.actions import DISCLOSURE_ACTIONS
from ...audit.events import (
    Action,
    NewEvent,
    Origin,
    compute_resource_pseudonym,
    get_registered_disclosure_actions,
    parse_detail,
)
from ...audit.models import AuditEvent
from ...audit.purposes import PATIENT_REQUEST, PURPOSES
from ...audit.recorder import record_many
from ...audit.search import (
    PAGE_SIZE,
    EventQuery,
    KeysetPage,
    find_oldest_unarchived_time,
    iterate_event_pages_of_query,
    list_events_of_query,
)
from ...crypto import keyring
from ...errors import AuditUnavailable, KeyMissing
from ...subjects.models import PairwiseSubject
from .accounting_copies import store_copy
from .recipients import UNKNOWN_RECIPIENT, Recipient, find_current_recipients, find_recipients
from .suspensions import find_suspended_purposes

_ACCOUNTING_YEARS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """One access to a record."""

    id: uuid.UUID
    """Of the event."""
    occurred_at: datetime
    action: str
    actor: str
    """The primary key as text; `os:` and more for the operator of a command; empty for the
    system.
    """
    on_behalf_of: str
    """The primary key, as text, of the account for which the actor acted, or empty."""
    is_own: bool
    """The actor is the person."""
    recipient: Recipient = UNKNOWN_RECIPIENT
    """The actor at the time of the access. Without a name: the person, a command, or unknown."""
    represented: Recipient = UNKNOWN_RECIPIENT
    """The account of on_behalf_of at the time of the access."""
    purpose: str
    """HL7 PurposeOfUse code, or empty."""
    resource: str
    """`Type/id` as the project names it, even if the audit log has pseudonyms; empty for a
    claim.
    """
    claims: tuple[str, ...]
    emergency: str
    """The id of the emergency access that permitted it, or empty."""

    @property
    def purpose_name(self) -> str:
        """The English name of the purpose code."""
        return PURPOSES.get(self.purpose, self.purpose)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureAccounting:
    """The disclosures of one person's record since a date. Only `create_accounting` creates it."""

    user_pk: str
    """The primary key as text."""
    since: datetime
    includes_own: bool
    subject_uuids: tuple[str, ...]
    resource_names: Mapping[str, str]
    """The names of the person's resources in the audit log, mapped to their names in the
    project.
    """
    suspended_purposes: Mapping[str, datetime]
    """The purposes whose disclosures are withheld, each with the end of the suspension. The person
    must not learn of it. Spec: 45 CFR 164.528(a)(2).
    """
    origin: Origin
    now: datetime

    def get_page(
        self,
        *,
        before: uuid.UUID | None = None,
        after: uuid.UUID | None = None,
        size: int = PAGE_SIZE,
    ) -> KeysetPage[Disclosure, uuid.UUID]:
        """Return up to size disclosures, newest first: the newest ones, or those next to the event
        `before` or `after`.

        The event of this accounting and a copy of it are committed first. The MACs of the events
        are NOT checked.
        Requires: no open transaction, which could roll back the copy and not the event.
        Raises: AuditUnavailable, RowUnreadable, and then nothing may be displayed.
        """
        page = list_events_of_query(self._build_query(), before=before, after=after, page_size=size)
        rows = self._create_disclosures(page.rows)
        self._record(rows)
        return KeysetPage(rows=rows, newer_key=page.newer_key, older_key=page.older_key)

    def list_all(self) -> list[Disclosure]:
        """Return all disclosures, newest first, as `get_page` does."""
        pages = iterate_event_pages_of_query(self._build_query())
        rows = []
        for page in pages:
            for row in self._create_disclosures(page):
                rows.append(row)
        self._record(rows)
        return rows

    def count_withheld(self) -> int:
        """Return how many disclosures are withheld from the person. Raises: AuditUnavailable,
        RowUnreadable.
        """
        if not self.suspended_purposes:
            return 0
        withheld = replace(
            self._build_query(), excluded_purposes=(), purposes=self.suspended_purposes
        )
        return sum(map(len, iterate_event_pages_of_query(withheld)))

    def find_available_since(self) -> datetime | None:
        """Return the oldest available time, or None if complete. Raises: AuditUnavailable,
        RowUnreadable.
        """
        oldest = find_oldest_unarchived_time()
        if oldest and oldest > self.since:
            return oldest
        return None

    def _build_query(self) -> EventQuery:
        return EventQuery(
            actions=sorted(DISCLOSURE_ACTIONS | get_registered_disclosure_actions()),
            subjects=self.subject_uuids,
            resources=self.resource_names,
            since=self.since,
            excluded_actor="" if self.includes_own else self.user_pk,
            excluded_purposes=self.suspended_purposes,
        )

    def _record(self, rows: Sequence[Disclosure]) -> None:
        """Commit a copy of what is given, and an event for each subject. Raises: AuditUnavailable,
        RowUnreadable.

        Requires: no open transaction, such as that of ATOMIC_REQUESTS. The copy would be part of
        it, and the event not.
        """
        detail: dict[str, Any] = {
            "since": self.since.isoformat(timespec="seconds"),
            "count": len(rows),
        }
        if self.suspended_purposes:
            until = max(self.suspended_purposes.values())
            detail |= {
                "withheld": self.count_withheld(),
                "suspended_until": until.isoformat(timespec="seconds"),
            }
        try:
            # The copy is rolled back if the events fail. The events are committed before it: if its
            # COMMIT fails, they name a copy that does not exist, and nothing is displayed.
            with transaction.atomic():
                detail["sha256"] = store_copy(
                    self.user_pk, list(map(_format_line, rows)), now=self.now
                )
                events = []
                for subject in self.subject_uuids or ("",):
                    event = NewEvent(
                        action=Action.SUBJECT_ACCOUNTED,
                        origin=self.origin,
                        now=self.now,
                        subject=subject,
                        purpose=PATIENT_REQUEST,
                        resource=f"user/{self.user_pk}",
                        detail=detail,
                    )
                    events.append(event)
                record_many(events)
        except KeyMissing as error:
            raise AuditUnavailable from error

    def _create_disclosures(self, events: Sequence[AuditEvent]) -> tuple[Disclosure, ...]:
        """Return the disclosures with their recipients. Raises: AuditUnavailable without the
        keys.
        """
        rows = [self._create_disclosure(event) for event in events]
        looks = []
        for row in rows:
            if not row.is_own:
                looks.append((row.actor, row.occurred_at))
        for row in rows:
            if row.on_behalf_of:
                looks.append((row.on_behalf_of, row.occurred_at))
        try:
            known = find_recipients(looks)
        except KeyMissing as error:
            raise AuditUnavailable from error
        # Events from before the first row: the name that the account has now is better than none.
        unknown = set()
        for actor, moment in looks:
            if actor and (actor, moment) not in known:
                unknown.add(actor)
        current = find_current_recipients(unknown)

        def find_account(key: str, moment: datetime) -> Recipient:
            if (key, moment) in known:
                return known[key, moment]
            return current.get(key, UNKNOWN_RECIPIENT)

        disclosures = []
        for row in rows:
            disclosures.append(
                replace(
                    row,
                    recipient=find_account(row.actor, row.occurred_at),
                    represented=find_account(row.on_behalf_of, row.occurred_at),
                )
            )
        return tuple(disclosures)

    def _create_disclosure(self, event: AuditEvent) -> Disclosure:
        detail = parse_detail(event.detail)
        claims = detail.get("claims", detail.get("claim", []))
        if not isinstance(claims, list):
            # An event of the host project may have another type there.
            claims = [claims]
        return Disclosure(
            id=event.id,
            occurred_at=event.occurred_at,
            action=event.action,
            actor=event.actor,
            on_behalf_of=event.on_behalf_of,
            is_own=event.actor == self.user_pk,
            purpose=event.purpose,
            resource=self.resource_names.get(event.resource, event.resource),
            claims=tuple(map(str, claims)),
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
    """Return the accounting of the user's record. Each part of it that is read is recorded.

    resources: `Type/id` of the user's resources in the project. include_own: also what the person
    accessed, which 164.528(a)(1)(ii) exempts. Deleted links are excluded, because they may have
    belonged to another person. Disclosures for purposes that a legal hold suspends now are
    excluded, also from what staff give to the person.
    Raises: ImproperlyConfigured for an invalid resource; KeyMissing.
    """
    # Refuse invalid references: an accounting that omits them would be incomplete. A bare string is
    # iterable too.
    if not isinstance(resources, str):
        references = list(resources)
    else:
        references = []

    if isinstance(resources, str) or not all(map(is_resource_reference, references)):
        raise ImproperlyConfigured("PHI_OIDC['PATIENT_RESOURCES'] must return a list of Type/id.")
    references.insert(0, f"user/{user.pk}")
    # All names that the audit log may use: AUDIT['resource_ids'] and the oldest key may have
    # changed.
    names = {}
    for resource in references:
        names[resource] = resource
    for key in keyring.get_keys("audit_mac"):
        for resource in references:
            names[compute_resource_pseudonym(resource, key=key.material)] = resource
    uuids = (
        PairwiseSubject.objects.filter(user=user.pk).order_by("pk").values_list("uuid", flat=True)
    )
    subjects = tuple(map(str, uuids))
    return DisclosureAccounting(
        user_pk=str(user.pk),
        since=since,
        includes_own=include_own,
        subject_uuids=subjects,
        resource_names=names,
        suspended_purposes=find_suspended_purposes(user.pk, now=now),
        origin=origin,
        now=now,
    )


def _format_line(disclosure: Disclosure) -> str:
    """Return the line of the copy: JSON with sorted members."""
    members = {
        "action": disclosure.action,
        "actor": disclosure.actor,
        "claims": disclosure.claims,
        "emergency": disclosure.emergency,
        "event": str(disclosure.id),
        "name": disclosure.recipient.name,
        "occurred_at": disclosure.occurred_at.astimezone(UTC).isoformat(),
        "on_behalf_of": disclosure.on_behalf_of,
        "own": disclosure.is_own,
        "purpose": disclosure.purpose,
        "resource": disclosure.resource,
        "roles": disclosure.recipient.roles,
    }
    return json.dumps(members, sort_keys=True, ensure_ascii=False)


def get_accounting_start(now: datetime) -> datetime:
    """Return the start of the accounting period. Spec: 45 CFR 164.528(a)(1)."""
    try:
        return now.replace(year=now.year - _ACCOUNTING_YEARS)
    except ValueError:
        return now.replace(year=now.year - _ACCOUNTING_YEARS, day=28)
