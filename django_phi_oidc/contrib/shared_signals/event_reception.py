"""Receive a security event: verify it, record it, then apply its effects, once.

The event is committed to the audit log before the effects are. If either fails, the transmitter
gets no acknowledgement and sends the event again. Spec: RFC 8417; SSF 1.0; CAEP 1.0; RISC 1.0.
"""

import logging
import re
from datetime import datetime, timedelta
from uuid import UUID

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from ..._internal import clock
from ...audit.events import Action, NewEvent, Origin
from ...audit.outbox import enqueue_many
from ...audit.recorder import record
from ...audit.refusals import RefusalLog, report_refusal
from ...config.providers import ProviderDeclaration
from ...crypto import keyring
from ...errors import (
    AuditUnavailable,
    KeyNotFound,
    KeyRingError,
    MetadataError,
    PhiOidcError,
    SubjectKeyMissing,
    TransportError,
)
from ...replay.cache import is_remembered, mark_used_in_transaction, was_used
from ...sessions.backchannel_logout import end_matching_sessions
from ...sessions.digests import sha256_hex
from ...sessions.lifecycle import EndedSession
from ...sessions.models import EndReason, OIDCSession
from ...sessions.recent_logouts import remember_logout
from ...subjects.linking import list_subject_digests, list_subject_ids
from ...subjects.models import PairwiseSubject
from .declaration import SignalsDeclaration
from .errors import SecurityEventTokenInvalid
from .security_event_token import (
    ENDING_EVENTS,
    IDENTIFIER_CHANGED,
    IDENTIFIER_EVENTS,
    SESSION_REVOKED,
    SIGN_IN_EVENTS,
    STREAM_UPDATED,
    TOKEN_CLAIMS_CHANGE,
    VERIFICATION,
    SecurityEventToken,
    verify_security_event_token,
)
from .sign_in_demands import demand_new_sign_in, remember_demand
from .transmitter import get_transmitter

RETRIABLE_ERRORS: tuple[type[Exception], ...] = (
    *(TransportError, MetadataError),
    *(AuditUnavailable, SubjectKeyMissing, KeyRingError, DatabaseError, InterfaceError),
)
"""Faults after which the same event may be received: the transmitter gets no acknowledgement."""
STATE_KIND = "signal_state"
VERIFIED_KIND = "signal_verified"
"""The kinds of used identifiers: a requested verification, and one whose event was received."""
logger = logging.getLogger("django_phi_oidc.signals")
_JTI_KIND = "security_event"
_KNOWN_TYPE = re.compile(
    r"https://schemas\.openid\.net/secevent/([a-z]{1,16})/event-type/([a-z0-9-]{1,64})"
)
_REFUSAL_MESSAGE = (
    "A security event was refused: reason=%(reason)s "
    "rule=%(rule)s provider=%(provider)s request=%(request)s"
)


@sensitive_variables()
def verify_event(token: str, *, provider: str, timeout_seconds: float) -> SecurityEventToken:
    """Return the verified event. timeout_seconds: for each call to the transmitter.

    Raises: SecurityEventTokenInvalid; TransportError, MetadataError: the token can't be verified
    now.
    """
    transmitter = get_transmitter(provider)
    try:
        return verify_security_event_token(
            token,
            keys=transmitter.get_key_set(timeout_seconds=timeout_seconds),
            declaration=transmitter.provider.declaration,
            signals=transmitter.signals,
            now=clock.now(),
        )
    except KeyNotFound as error:
        if not error.is_certain:
            raise
        raise SecurityEventTokenInvalid(error.code) from error


@sensitive_variables()
def process_event(
    event: SecurityEventToken,
    *,
    declaration: ProviderDeclaration,
    signals: SignalsDeclaration,
    origin: Origin,
    now: datetime,
    lease_revocations: bool = False,
) -> list[EndedSession]:
    """Record the event, and apply its effects unless it was processed before; return the sessions
    that ended.

    The effects and the mark of its jti are one transaction. Events may come in any order and late:
    a session that began after the event, beyond the declared leeway, is not ended by it. An event
    of an unknown type is only recorded.
    lease_revocations: as in `end_sessions`.
    Requires: no open transaction (RuntimeError). Raises: SecurityEventTokenInvalid
    (`state_invalid`) for a verification that was not requested; one of RETRIABLE_ERRORS, and then
    nothing is changed.
    """
    # A jti is unique within one feed (RFC 8417 2.2), and two providers may have the same
    # transmitter. Names and issuers contain no NUL, so two triples never give the same identifier.
    identifier = f"{declaration.name}\0{event.iss}\0{event.jti}"
    if was_used(_JTI_KIND, identifier):
        return []
    if event.event_type == VERIFICATION:
        _validate_state(event, provider=declaration.name, now=now)
    condition = _find_sessions(event, declaration=declaration)
    subject = _find_subject_uuid(condition)
    detail = {
        "event": format_event_type(event.event_type),
        "event_time": event.occurred_at.isoformat("T", "seconds"),
    }
    record(
        Action.SIGNAL_RECEIVED,
        origin=origin,
        now=now,
        provider=declaration.name,
        subject=subject,
        detail=detail,
    )
    if _ends_sessions(event, declaration=declaration):
        # Committed before the sessions are read, see `recent_logouts`.
        _remember_end(event, declaration=declaration, now=now)
    elif event.event_type in SIGN_IN_EVENTS and (
        sub := event.subject.sub or event.subject.opaque_id
    ):
        # Committed before the persons are read: a first sign-in that is in progress finds it, or
        # its link is found.
        keys = keyring.get_keys("subject")
        remember_demand(
            list_subject_digests(declaration.issuer, sub, keys), since=event.occurred_at
        )
    with transaction.atomic(durable=True):
        if not mark_used_in_transaction(_JTI_KIND, identifier, expires_at=event.valid_until):
            return []
        return _apply(
            event,
            condition,
            lease_revocations=lease_revocations,
            declaration=declaration,
            signals=signals,
            subject=subject,
            origin=origin,
            now=now,
        )


def report_refused_event(
    refusal: SecurityEventTokenInvalid, *, provider: str, origin: Origin, now: datetime
) -> None:
    """Record and log that an event was refused. provider: as declared, maybe by an unverified
    token; or empty.
    """
    fields = {
        "reason": refusal.code,
        "rule": refusal.rule,
        "provider": provider,
        "request": origin.request_id,
    }
    log = RefusalLog(logger, _REFUSAL_MESSAGE, fields)
    detail = {"rule": refusal.rule}
    report_refusal(
        Action.SIGNAL_REFUSED,
        refusal.code,
        log=log,
        origin=origin,
        now=now,
        provider=provider,
        detail=detail,
    )


def log_fault(fault: Exception, *, provider: str) -> None:
    """Log the code or class of a fault only: the message of a database error may contain values."""
    name: str
    if isinstance(fault, PhiOidcError):
        name = fault.code
    else:
        name = type(fault).__name__
    logger.error("Security events can't be processed now: fault=%s provider=%s", name, provider)


def format_event_type(uri: str) -> str:
    """Return `profile/name` of a type that the OpenID Foundation defines, and `other` for all
    others.
    """
    match = _KNOWN_TYPE.fullmatch(uri)
    if match:
        return f"{match[1]}/{match[2]}"
    return "other"


def format_verification(provider: str, stream_id: str, state: str) -> str:
    """Return what identifies a requested verification."""
    return f"{provider}\0{stream_id}\0{state}"


def _validate_state(event: SecurityEventToken, *, provider: str, now: datetime) -> None:
    """`state_invalid`: the state, if any, was requested for the stream that is the subject. Spec:
    SSF 1.0 8.1.4.1.
    """
    if "state" not in event.event:
        return
    state = event.event["state"]
    stream_id = event.subject.opaque_id
    verification = format_verification(provider, stream_id, str(state))
    if not isinstance(state, str) or not is_remembered(STATE_KIND, [verification], until=now):
        raise SecurityEventTokenInvalid("state_invalid")


@sensitive_variables()
def _find_sessions(event: SecurityEventToken, *, declaration: ProviderDeclaration) -> Q | None:
    """Return the condition of the subject's sessions; None if the subject is none that this portal
    could recognize.

    "session-revoked" with a session ends that one only. One whose `sid` is not known here counts as
    that session: the provider may not state it in ID Tokens. For other events, the person matters.
    """
    subject = event.subject
    if not subject.is_recognizable or event.event_type in (VERIFICATION, STREAM_UPDATED):
        return None
    of_issuer = Q(issuer=declaration.issuer)
    of_person = Q(subject__in=_list_subject_ids(event, declaration=declaration))
    if subject.opaque_id:
        return of_issuer & (of_person | Q(sid_digest=sha256_hex(subject.opaque_id)))
    if not subject.sid or (subject.sub and event.event_type != SESSION_REVOKED):
        return of_issuer & of_person
    named = Q(sid_digest=sha256_hex(subject.sid))
    return of_issuer & (of_person & (named | Q(sid_digest="")) if subject.sub else named)


@sensitive_variables()
def _list_subject_ids(event: SecurityEventToken, *, declaration: ProviderDeclaration) -> list[int]:
    """Raises: SubjectKeyMissing, KeyMissing."""
    if not (sub := event.subject.sub or event.subject.opaque_id):
        return []
    return list_subject_ids(issuer=declaration.issuer, sub=sub, keys=keyring.get_keys("subject"))


def _list_subject_uuids(
    event: SecurityEventToken, condition: Q, *, declaration: ProviderDeclaration
) -> list[UUID]:
    """Return the pseudonyms of the persons, also of those without a session here. Raises: as
    _list_subject_ids.
    """
    with_session = OIDCSession.objects.filter(condition, subject__isnull=False).values("subject")
    named = Q(pk__in=_list_subject_ids(event, declaration=declaration))
    return list(
        PairwiseSubject.objects.filter(named | Q(pk__in=with_session)).values_list(
            "uuid", flat=True
        )
    )


@sensitive_variables()
def _find_subject_uuid(condition: Q | None) -> str:
    """Return the pseudonym of the person, if the event is about one person whose session this
    portal knows.
    """
    if condition is None:
        return ""
    pks = OIDCSession.objects.filter(condition, subject__isnull=False).values("subject")
    uuids = PairwiseSubject.objects.filter(pk__in=pks).values_list("uuid", flat=True)[:2]
    if len(uuids) == 1:
        return str(uuids[0])
    return ""


@sensitive_variables()
def _remember_end(
    event: SecurityEventToken, *, declaration: ProviderDeclaration, now: datetime
) -> None:
    """Refuse a sign-in that was requested before the event and is in progress. A later end that is
    known stays.
    """
    subject = event.subject
    keys = keyring.get_keys("subject")
    # The time of the event may be rounded down to seconds. A sign-in that is requested from now on
    # comes after it.
    end_time = min(event.occurred_at + declaration.leeway, now)

    if event.event_type == SESSION_REVOKED or not subject.sub:
        sid = subject.sid
    else:
        sid = ""

    if sid:
        named = [(sid, "")]
    else:
        named = [("", subject.sub or subject.opaque_id), (subject.opaque_id, "")]

    for sid, sub in named:
        if sid or sub:
            remember_logout(
                issuer=declaration.issuer,
                sid=sid,
                sub=sub,
                keys=keys,
                reason=EndReason.SECURITY_EVENT,
                now=end_time,
            )


def _ends_sessions(event: SecurityEventToken, *, declaration: ProviderDeclaration) -> bool:
    """Return whether the event ends sessions, or those whose tokens cannot be refreshed."""
    # A provider that is never asked for a new authentication, or does not state its time, could not
    # meet the demand.
    can_demand = declaration.reauthentication == "verify" and not declaration.allow_auth_time_zero
    if event.event_type in SIGN_IN_EVENTS:
        return not can_demand
    return event.event_type in (*ENDING_EVENTS, TOKEN_CLAIMS_CHANGE)


def _apply(
    event: SecurityEventToken,
    condition: Q | None,
    *,
    declaration: ProviderDeclaration,
    signals: SignalsDeclaration,
    subject: str,
    origin: Origin,
    now: datetime,
    lease_revocations: bool,
) -> list[EndedSession]:
    """Apply the effects in the open transaction, and return the sessions that ended. subject: of
    the events; "" if there is none.
    """

    def enqueue_alert(rule: str) -> None:
        alert = NewEvent(
            action=Action.ALERT_RAISED,
            origin=origin,
            now=now,
            provider=declaration.name,
            subject=subject,
            detail={"rule": rule},
        )
        enqueue_many([alert])

    ended: list[EndedSession] = []
    if event.event_type == VERIFICATION and "state" in event.event:
        verification = format_verification(
            declaration.name, event.subject.opaque_id, event.event["state"]
        )
        mark_used_in_transaction(VERIFIED_KIND, verification, expires_at=now + timedelta(hours=1))
    if event.event_type == STREAM_UPDATED and event.event.get("status") in ("paused", "disabled"):
        enqueue_alert("signals_stopped")
    if event.event_type in IDENTIFIER_EVENTS:
        # Also without a known person: the subject is usually the address. Spec: RISC 1.0 2.5, 2.6.
        if event.event_type == IDENTIFIER_CHANGED:
            enqueue_alert("identifier_changed")
        else:
            enqueue_alert("identifier_recycled")
    if condition is None:
        return ended
    begun = Q(started_at__lte=event.occurred_at + declaration.leeway)
    ending = condition & begun
    if event.event_type == TOKEN_CLAIMS_CHANGE and signals.token_claims_change == "refresh":
        live = OIDCSession.objects.live().filter(ending, refresh_token__isnull=False)
        live.update(access_token_expires_at=now)
        ending &= Q(refresh_token__isnull=True)
    if _ends_sessions(event, declaration=declaration):
        ended = end_matching_sessions(
            ending,
            EndReason.SECURITY_EVENT,
            origin=origin,
            now=now,
            lease_revocations=lease_revocations,
        )
    elif event.event_type in SIGN_IN_EVENTS:
        live = OIDCSession.objects.live().filter(condition)
        demand_new_sign_in(
            session_ids=list(live.values_list("pk", flat=True)),
            subjects=_list_subject_uuids(event, condition, declaration=declaration),
            since=event.occurred_at,
        )
    return ended
