"""What users see and do about their own account: sessions, what is held, who had access, a copy of
all data.

Each function takes the actor and returns or changes only rows of that user: no parameter selects
another person.
Spec: ASVS 5.0 7.5.2.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...access.policy import Assurance
from ...audit.descriptions import get_purpose_label
from ...audit.outbox import batch_delivery
from ...audit.request_context import Actor
from ...claims.models import FOREVER, StoredClaim, get_claim_label
from ...claims.retention_limits import get_expiry
from ...sessions.lifecycle import end_sessions
from ...sessions.models import EndReason, OIDCSession, OIDCSessionQuerySet
from ...sessions.sign_in_places import get_device_label
from ...sessions.tasks import revoke_after_commit
from ...subjects.account_changes import AccountChange, report_changes
from ...subjects.models import PairwiseSubject
from . import conf as individual_rights_conf
from .accounting import Disclosure, DisclosureAccounting, create_accounting
from .export import PersonExport, export_person
from .recipients import Recipient
from .suspensions import find_suspended_purposes, hide_suspensions

RECENT_SIGN_IN = Assurance(max_age=timedelta(minutes=15))
"""What ending sessions and the copy of all data require: an attacker at an open browser must not
lock its user out.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSession:
    """A live session of the user."""

    id: uuid.UUID
    device: str
    """In words, such as "Firefox on Windows"."""
    network: str
    """The address range of the sign-in; empty if it is unknown."""
    provider: str
    """The label of the provider, or its host without a label."""
    started_at: datetime
    last_seen_at: datetime
    is_current: bool
    """The session of this request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnClaim:
    """A claim that is stored about the user, without its value."""

    name: str
    purpose: str
    """HL7 PurposeOfUse code."""
    kept_until: datetime | None
    """None: until its session ends, or while a legal hold keeps it."""
    is_held: bool
    """A legal hold keeps it."""
    is_expired: bool
    """It is about to be erased."""

    @property
    def label(self) -> str:
        """The name of the claim in words."""
        return get_claim_label(self.name)

    @property
    def purpose_label(self) -> str:
        return get_purpose_label(self.purpose)


def list_own_sessions(actor: Actor) -> list[OwnSession]:
    """Return the live sessions of the user, that of this request first, then by their last
    activity.
    """
    sessions = []
    for row in _query_own_sessions(actor).order_by("-last_seen_at", "-pk"):
        sessions.append(_create_own_session(row, actor))
    return sorted(sessions, key=lambda session: not session.is_current)


def find_other_session(actor: Actor, session_id: uuid.UUID) -> OwnSession | None:
    """Return that live session of the user; None for the current one, an ended one and that of
    another user.
    """
    row = _query_other_sessions(actor).filter(pk=session_id).first()
    if row is None:
        return None
    return _create_own_session(row, actor)


def end_other_sessions(actor: Actor, *, session_id: uuid.UUID | None = None, now: datetime) -> int:
    """End that other session of the user, or all, and return the number. Requires: RECENT_SIGN_IN.

    The sessions end with a mail to the user in one transaction; their tokens are revoked after it.
    The current session ends by signing out.
    """
    others = _query_other_sessions(actor)
    if session_id is not None:
        others = others.filter(pk=session_id)
    # Before the transaction: on SQLite, its first statement has to write.
    ids = list(others.values_list("pk", flat=True))
    with batch_delivery():
        with transaction.atomic():
            if ids:
                ended = end_sessions(ids, EndReason.ACCOUNT_OWNER, origin=actor.origin, now=now)
            else:
                ended = []
            if ended:
                report_changes([actor.user], AccountChange.SESSIONS_ENDED, provider="", now=now)
        revocation_ids = list[uuid.UUID]()
        for session in ended:
            revocation_ids.extend(session.revocation_ids)
        revoke_after_commit(revocation_ids)
    return len(ended)


def list_held_claims(user: AbstractBaseUser, *, now: datetime) -> list[OwnClaim]:
    """Return which claims are stored about the user, by name. No value is read.

    While a legal hold suspends the accounting, the list is as it would be without that hold (45 CFR
    164.528(a)(2)).
    """
    declarations = conf.claims()
    rows = (
        StoredClaim.objects.filter(subject__user=user.pk)
        .select_related("subject")
        .defer("value")
        .order_by("name")
    )
    claims = list(rows)
    if find_suspended_purposes(user.pk, now=now):
        claims = hide_suspensions(claims, now=now)
    held: dict[OwnClaim, None] = {}
    for claim in claims:
        expiry = get_expiry(claim, declarations.get(claim.name))
        is_held = claim.held_until is not None and claim.held_until > max(expiry, now)
        if claim.held_until and is_held:
            kept_until = claim.held_until
        else:
            kept_until = expiry

        item = OwnClaim(
            name=claim.name,
            purpose=claim.purpose,
            kept_until=None if kept_until == FOREVER else kept_until,
            is_held=is_held,
            is_expired=kept_until <= now,
        )
        # Several sessions may have brought the same claim.
        held[item] = None
    return list(held)


@sensitive_variables()
def export_own_data(actor: Actor, *, now: datetime) -> PersonExport:
    """Return the copy of all data about the user, after its events. Requires: RECENT_SIGN_IN.

    It is the user's own request, so claims of each category are included. Events do not name
    members of staff: the accounting of disclosures does, as the project wants it. Raises:
    AuditUnavailable.
    """
    user = actor.user
    subjects = list(PairwiseSubject.objects.filter(user=actor.user.pk).order_by("pk"))
    exported = export_person(
        user,  # type: ignore[arg-type]  # a user with a session
        subjects,
        claim_declarations=conf.claims(),
        origin=actor.origin,
        now=now,
    )
    for subject in exported.document["subjects"]:
        for event in subject["events"]:
            if event["actor"] not in ("", str(user.pk)):
                event["actor"] = "staff"
    return exported


def create_own_accounting(
    actor: Actor, *, since: datetime, include_own: bool, now: datetime
) -> DisclosureAccounting:
    """Return the accounting of the user's record. Each part of it that is read is recorded."""
    user = actor.user
    get_resources = individual_rights_conf.patient_resources()

    if get_resources:
        resources = get_resources(user)
    else:
        resources = ()

    return create_accounting(
        user,  # type: ignore[arg-type]  # a user with a session
        resources=resources,
        since=since,
        include_own=include_own,
        origin=actor.origin,
        now=now,
    )


def get_recipient_name(recipient: Recipient) -> str:
    """Return the name for display of an account that had access. Without one: an account without a
    name, or unknown.
    """
    return recipient.name or _("a member of staff")


def get_represented_name(disclosure: Disclosure, reader: Actor) -> str:
    """Return the name for display of the account on whose behalf the record was accessed, or
    empty.
    """
    if not disclosure.on_behalf_of:
        return ""
    if disclosure.on_behalf_of == str(reader.user.pk):
        return _("you")
    return disclosure.represented.name or _("another person")


def _query_own_sessions(actor: Actor) -> OIDCSessionQuerySet:
    return OIDCSession.objects.live().filter(user=actor.user.pk)


def _query_other_sessions(actor: Actor) -> OIDCSessionQuerySet:
    current = actor.origin.session
    if current:
        return _query_own_sessions(actor).exclude(pk=current)
    return _query_own_sessions(actor)


def _create_own_session(row: OIDCSession, actor: Actor) -> OwnSession:
    declaration = conf.providers().get(row.provider)

    if declaration and declaration.label:
        provider = str(declaration.label)
    else:
        provider = urlsplit(row.issuer).netloc

    return OwnSession(
        id=row.pk,
        device=get_device_label(row.browser, row.platform),
        network=row.network,
        provider=provider,
        started_at=row.started_at,
        last_seen_at=row.last_seen_at,
        is_current=str(row.pk) == actor.origin.session,
    )
