"""Export all stored data of a person, and who accessed it, in one document. Spec: 45 CFR 164.524,
GDPR 15.
"""

import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from ...access.part2 import NOTICE, NOTICE_SECTION, PART2, lacks_consent
from ...access.policy import CONSENT_MISSING
from ...audit.events import MAX_ITEMS, Action, NewEvent, Origin, parse_detail
from ...audit.purposes import PATIENT_REQUEST
from ...audit.recorder import record_many
from ...audit.search import EventFilters, RowUnreadable, iterate_events
from ...claims.minimization import list_personal_claims
from ...claims.models import StoredClaim
from ...config.claims import ClaimDeclaration
from ...crypto import keyring
from ...errors import KeyRingError, RevealRefused
from ...oidc.jose import parse_compact_jws
from ...sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from ...subjects.models import PairwiseIdentifier, PairwiseSubject
from ..common.declared_refusal import find_declared_refusal
from ..common.personal_data_sources import PersonalDataExport, personal_data_sources
from ..common.serialized_rows import format_datetime, serialize_row
from .models import AccountingCopy
from .recipients import list_stored_names
from .suspensions import find_suspended_purposes, hide_suspensions

_HOLD_ACTIONS = frozenset({Action.HOLD_PLACED, Action.HOLD_RELEASED})

_TOKEN_NAMES = {
    "access_token": "access token (may contain claims)",
    "refresh_token": "refresh token",
}
"""Columns of a session, and hints of a revocation. The values are credentials, so they are not
exported.
"""
_PLACE = ("browser", "platform", "network")


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonExport:
    """The document, and the items that could not be read. The document lists them as well."""

    document: Mapping[str, Any] = field(repr=False)
    unreadable_items: tuple[str, ...]
    withheld_count: int
    """Events and claims that a suspension of the accounting keeps from the person: for staff
    only.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenedSession:
    row: OIDCSession
    id_token: Mapping[str, Any] = field(repr=False)
    """The claims that are kept of the ID Token."""
    is_readable: bool


@sensitive_variables()
def export_person(
    user: AbstractBaseUser,
    subjects: Sequence[PairwiseSubject],
    *,
    claim_declarations: Mapping[str, ClaimDeclaration],
    origin: Origin,
    now: datetime,
    purpose: str = PATIENT_REQUEST,
    reason_code: str = "",
    actor_user: Any = None,
    consent: str = "",
) -> PersonExport:
    """Return the stored data of these subjects of user as JSON values, after the events of the
    export are committed.

    purpose: the HL7 PurposeOfUse code of the export. reason_code: the `reason` of its events;
    contains nothing about a person. actor_user: the account that gets the document, which then
    needs the permission of the category of each claim, stored or in a kept ID Token, and must be a
    superuser for an undeclared claim; None: a command on the server, or the person.
    consent: the reference to the person's consent, for claims with a label; at the person's own
    request (PATRQT) none is needed (42 CFR 2.23).

    Included: all stored claims, even expired ones; sessions without keys, with the claims that are
    kept of their ID Token, and the names of their other stored tokens, which may contain claims;
    legal holds without their reason, which may be about others; the events about the person with
    their actors; pairwise identifiers; invitations without their author; emergency accesses that
    the person opened, without record and reason, which are about others; the names under which the
    person got data of others; which accountings were given, without their lines; notices; and known
    browsers. The number of SELECTs does not depend on the number of subjects. Only the events are
    read in pages of a thousand.

    While a legal hold suspends the accounting (45 CFR 164.528(a)(2)), the document leaves out that
    hold, the events for its purposes and the expired claims that no other hold preserves, unless
    the export is for one of these purposes itself.
    Raises: AuditUnavailable, and then no stored claim was decrypted, and the kept ID Tokens only
    for the names of their claims; RevealRefused, after the events of the refused claims: a document
    without them would be incomplete.
    """
    suspended, until = _find_suspension(user, purpose=purpose, now=now)
    claims = list(
        StoredClaim.objects.filter(subject__in=subjects)
        .select_related("subject")
        .order_by("name", "obtained_at")
    )
    claim_count = len(claims)
    if suspended:
        claims = hide_suspensions(claims, now=now)
    sessions = _open_sessions(user, subjects)
    names = _list_claim_names(subjects, claims, sessions)
    labelled = set()
    for name, declaration in claim_declarations.items():
        if declaration.label:
            labelled.add(name)
    _refuse_claims(
        user,
        names,
        claim_declarations,
        actor_user=actor_user,
        origin=origin,
        now=now,
        purpose=purpose,
        consent=consent,
    )
    events = _build_export_events(
        user,
        names,
        origin=origin,
        now=now,
        purpose=purpose,
        reason=reason_code,
        consent=consent,
        labelled=labelled,
        suspended_until=until,
    )
    record_many(list(events))

    export = PersonalDataExport(
        user=user, subjects=subjects, hides_suspensions=bool(suspended), unreadable_items=[]
    )
    unreadable = export.unreadable_items
    withheld = list[uuid.UUID]()
    further_members = _export_subject_members(export)
    serialized_subjects = []
    for subject in subjects:
        exported_claims = _iter_claims(subject, claims, claim_declarations, user.pk, unreadable)
        events_about = _iter_events(subject, unreadable, withheld, suspended_purposes=suspended)
        serialized_subjects.append(
            {
                "uuid": str(subject.uuid),
                **serialize_row(subject, "issuer", "first_seen_at", "last_seen_at"),
                **further_members[subject.pk],
                "claims": list(exported_claims),
                "events": list(events_about),
            }
        )
    redisclosure_notice = None
    for claim_names in names.values():
        if not labelled.isdisjoint(claim_names):
            redisclosure_notice = NOTICE
    document = {
        "exported_at": format_datetime(now),
        "redisclosure_notice": redisclosure_notice,
        "account": {"id": str(user.pk), "username": user.get_username()},
        "subjects": serialized_subjects,
        "sessions": _serialize_sessions(sessions, unreadable),
        **_export_account_members(export),
        "unreadable": unreadable,
    }
    withheld_count = len(withheld) + claim_count - len(claims)
    return PersonExport(
        document=document, unreadable_items=tuple(unreadable), withheld_count=withheld_count
    )


def _find_suspension(
    user: AbstractBaseUser, *, purpose: str, now: datetime
) -> tuple[Mapping[str, datetime], str]:
    """Return the purposes whose events the export leaves out, each with its end, and the last end
    for the events.
    """
    suspended = find_suspended_purposes(user.pk, now=now)
    if not suspended or purpose in suspended:
        return {}, ""
    return suspended, max(suspended.values()).isoformat(timespec="seconds")


def _export_subject_members(export: PersonalDataExport) -> dict[Any, dict[str, Any]]:
    """Return what apps have stored for the subjects, by primary key."""
    members: dict[Any, dict[str, Any]] = {}
    for subject in export.subjects:
        members[subject.pk] = {}
    for source in personal_data_sources:
        for subject_pk, of_subject in source.export_subjects(export).items():
            members[subject_pk].update(of_subject)
    return members


def _export_account_members(export: PersonalDataExport) -> dict[str, Any]:
    """Return what is stored for the account, and not for one of its subjects."""
    user = export.user
    identifiers = PairwiseIdentifier.objects.filter(user=user.pk).order_by("sector")
    copies = (
        AccountingCopy.objects.filter(account=str(user.pk))
        .defer("lines")
        .order_by("first_given_at", "pk")
    )
    members: dict[str, Any] = {
        "identifiers": [serialize_row(row, "sector", "value") for row in identifiers],
        "recipient_names": _serialize_stored_names(user),
        "accountings": [
            serialize_row(row, "first_given_at", "last_given_at", "count", "sha256")
            for row in copies
        ],
    }
    for source in personal_data_sources:
        members.update(source.export_account(export))
    return members


def _serialize_stored_names(user: AbstractBaseUser) -> list[dict[str, Any]]:
    serialized = []
    for since, recipient in list_stored_names(user):
        serialized.append(
            {
                "since": format_datetime(since),
                "name": recipient.name,
                "roles": list(recipient.roles),
            }
        )
    return serialized


def _list_claim_names(
    subjects: Sequence[PairwiseSubject],
    claims: Sequence[StoredClaim],
    sessions: Sequence[_OpenedSession],
) -> dict[PairwiseSubject | None, list[str]]:
    """Return the sorted names of the claims of each subject. None: an account or a session without
    a subject.
    """
    names: dict[PairwiseSubject | None, set[str]] = {subject: set() for subject in subjects}
    for claim in claims:
        names[claim.subject].add(claim.name)
    for session in sessions:
        personal = list_personal_claims(session.id_token)
        if personal:
            names.setdefault(session.row.subject, set()).update(personal)
    return {subject: sorted(of_subject) for subject, of_subject in names.items()} or {None: []}


def _refuse_claims(
    user: AbstractBaseUser,
    names_by_subject: Mapping[PairwiseSubject | None, Sequence[str]],
    declarations: Mapping[str, ClaimDeclaration],
    *,
    actor_user: Any,
    consent: str,
    **event_fields: Any,
) -> None:
    """Raises: RevealRefused if claims are refused by their declaration, after an event for each."""
    is_own_request = event_fields["purpose"] == PATIENT_REQUEST
    event = NewEvent(
        Action.ACCESS_DENIED, outcome="failure", resource=f"user/{user.pk}", **event_fields
    )
    events = []
    for subject, names in names_by_subject.items():
        if subject is None:
            uuid_text = ""
        else:
            uuid_text = str(subject.uuid)
        for name in names:
            refusal = find_declared_refusal(
                actor_user, declarations.get(name), subject, consent=consent
            )
            if refusal and not (is_own_request and refusal == CONSENT_MISSING):
                events.append(
                    event._replace(subject=uuid_text, reason=refusal, detail={"claim": name})
                )
    record_many(events)
    if events:
        raise RevealRefused(events[0].reason)


def _build_export_events(
    user: AbstractBaseUser,
    names_by_subject: Mapping[PairwiseSubject | None, Sequence[str]],
    *,
    consent: str,
    labelled: AbstractSet[str],
    suspended_until: str,
    **event_fields: Any,
) -> Iterator[NewEvent]:
    """Yield the events: the claim names of each subject, or one event for an account without
    subjects.
    """
    if suspended_until:
        suspension = {"suspended_until": suspended_until}
    else:
        suspension = {}
    for subject, names in names_by_subject.items():
        if subject is None:
            uuid_text = ""
        else:
            uuid_text = str(subject.uuid)
        for start in range(0, max(len(names), 1), MAX_ITEMS):
            batch = names[start : start + MAX_ITEMS]
            detail: dict[str, Any] = {"claims": batch, **suspension}
            if not labelled.isdisjoint(batch):
                detail["notice"] = NOTICE_SECTION
                if not lacks_consent(PART2, consent):
                    detail["consent"] = consent
            yield NewEvent(
                action=Action.SUBJECT_EXPORTED,
                subject=uuid_text,
                resource=f"user/{user.pk}",
                detail=detail,
                **event_fields,
            )


def _iter_claims(
    subject: PairwiseSubject,
    claims: Sequence[StoredClaim],
    declarations: Mapping[str, ClaimDeclaration],
    user_id: Any,
    unreadable: list[str],
) -> Iterator[dict[str, Any]]:
    for claim in claims:
        if claim.subject_id == subject.pk:
            yield _serialize_claim(claim, declarations.get(claim.name), user_id, unreadable)


@sensitive_variables()
def _serialize_claim(
    claim: StoredClaim, declaration: ClaimDeclaration | None, user_id: Any, unreadable: list[str]
) -> dict[str, Any]:
    """Return the decrypted claim; one that can't be decrypted has no value and is added to
    unreadable.
    """
    sealed: Any = StoredClaim._meta.get_field("value")
    basis = None
    label = None
    if declaration:
        label = declaration.label
        # The legal basis of another purpose does not apply to this claim.
        if declaration.purpose == claim.purpose:
            basis = declaration.basis

    fields = {
        **serialize_row(claim, "name", "purpose"),
        "basis": basis,
        "label": label,
        **serialize_row(claim, "obtained_at", "expires_at", "held_until"),
    }
    try:
        claim.validate_owner(user_id)
        return {**fields, "value": json.loads(sealed.decrypt(claim))}
    except (KeyRingError, ValueError):
        unreadable.append(f"claim {claim.name}")
        return fields


@sensitive_variables()
def _open_sessions(
    user: AbstractBaseUser, subjects: Sequence[PairwiseSubject]
) -> list[_OpenedSession]:
    """Return the sessions with the claims that they keep of their ID Tokens."""
    keys = keyring.find_keys("encryption")
    # After a link is deleted, its sessions still refer to the account.
    is_of_person = Q(subject__in=subjects) | Q(user=user.pk, subject=None)
    opened = []
    for row in (
        OIDCSession.objects.filter(is_of_person)
        .select_related("subject")
        .order_by("started_at", "pk")
    ):
        columns = row.decrypt_columns(("id_token_claims", "id_token"), keys=keys)
        claims = json.loads(columns.plaintexts.get("id_token_claims", "{}"))
        id_token = columns.plaintexts.get("id_token")
        if id_token:
            claims |= parse_compact_jws(id_token).payload
        is_readable = not (columns.ciphertexts or columns.damaged)
        opened.append(_OpenedSession(row=row, id_token=claims, is_readable=is_readable))
    return opened


@sensitive_variables()
def _serialize_sessions(
    sessions: Sequence[_OpenedSession], unreadable: list[str]
) -> list[dict[str, Any]]:
    """Return the sessions, without the claims that identify the session.

    An ID Token that can't be decrypted is added to unreadable.
    """
    revocations = PendingRevocation.objects.filter(status=RevocationStatus.PENDING).order_by(
        "token_type_hint", "pk"
    )
    names_to_revoke: dict[uuid.UUID | None, list[str]] = {}
    for revocation in revocations.filter(session__in=[session.row.pk for session in sessions]):
        names_to_revoke.setdefault(revocation.session, []).append(
            _TOKEN_NAMES[revocation.token_type_hint]
        )
    times = ("started_at", "last_seen_at", "ended_at", "auth_time")
    serialized = []
    for session in sessions:
        row = session.row
        if not session.is_readable:
            unreadable.append(f"ID Token of session {row.pk}")

        if row.subject is None:
            subject = None
        else:
            subject = str(row.subject.uuid)

        serialized.append(
            {
                "id": str(row.pk),
                "subject": subject,
                **serialize_row(
                    row, "provider", "issuer", *times, optional=(*_PLACE, "end_reason", "acr")
                ),
                "id_token": _drop_session_claims(session.id_token),
                "tokens": _list_stored_tokens(row),
                "to_revoke": names_to_revoke.get(row.pk, []),
            }
        )
    return serialized


@sensitive_variables()
def _drop_session_claims(id_token: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims without those that identify the session."""
    kept = {}
    for name, value in id_token.items():
        if name not in ("nonce", "sid"):
            kept[name] = value
    return kept


def _list_stored_tokens(session: OIDCSession) -> list[str]:
    """Return the names of the stored tokens, not their values."""
    names = []
    for column, name in _TOKEN_NAMES.items():
        if getattr(session, column) is not None:
            names.append(name)
    return names


def _iter_events(
    subject: PairwiseSubject,
    unreadable_items: list[str],
    withheld_ids: list[uuid.UUID],
    *,
    suspended_purposes: Collection[str],
) -> Iterator[dict[str, Any]]:
    """Yield the events about the subject, up to a row that was altered into an invalid event."""
    try:
        for event in iterate_events(EventFilters(subject=str(subject.uuid))):
            detail = parse_detail(event.detail)
            is_suspending_hold = event.action in _HOLD_ACTIONS and "suspended_until" in detail
            if event.purpose in suspended_purposes or (suspended_purposes and is_suspending_hold):
                withheld_ids.append(event.id)
                continue
            single_claim = []
            if "claim" in detail:
                single_claim.append(detail["claim"])

            yield {
                "id": str(event.id),
                **serialize_row(event, "occurred_at", "action", "outcome", "purpose", "actor"),
                "claims": detail.get("claims", single_claim),
            }
    except RowUnreadable:
        unreadable_items.append(f"events of subject {subject.uuid}")
