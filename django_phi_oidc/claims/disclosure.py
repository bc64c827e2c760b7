"""The only way to the value of a claim: check the policy, commit the event, then decrypt."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, partial
from types import MappingProxyType
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from .. import conf
from .._internal import clock, request_secrets
from ..access.no_store import add_notice, mark_response_private
from ..access.part2 import NOTICE, get_disclosure_detail, lacks_consent
from ..access.policy import CLAIM_BOUND_TO_SESSION, CLAIM_NOT_DECLARED, find_reveal_refusal
from ..audit.events import Action, EventOutcome, NewEvent
from ..audit.recorder import record_many
from ..audit.request_context import Actor
from ..config.claims import ClaimDeclaration
from ..crypto.claim_keys import KeyCache
from ..errors import ClaimScrubbed, Code, KeyRingError, PhiOidcError, RevealRefused, Undecryptable
from ..extensions import disclosure_observers
from ..subjects.models import PairwiseSubject
from .categories import can_reveal
from .minimization import select_declared_members
from .models import NO_SESSION, StoredClaim
from .retention_limits import get_expiry

REVEAL_BATCH_SIZE = 1_000
"""Claims that one SELECT reads and one INSERT records (some 17,000 values)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealResult:
    """The result for one claim of one person. Its repr, which a page or log may show by mistake,
    omits the value.
    """

    name: str
    value: Any = field(default=None, repr=False)
    """As the provider sent it. None: the sign-in brought no such claim, or there is an error."""
    error: RevealRefused | ClaimScrubbed | Undecryptable | None = None
    notice: str = ""
    """The text to show with the value, for a claim with a label. Spec: 42 CFR 2.32."""

    def get(self) -> Any:
        """Return the value. Raises: the error, if there is one."""
        if self.error is not None:
            raise self.error
        return self.value

    @property
    def is_refused(self) -> bool:
        return isinstance(self.error, RevealRefused)

    @property
    def is_scrubbed(self) -> bool:
        return isinstance(self.error, ClaimScrubbed)

    @property
    def is_undecryptable(self) -> bool:
        return isinstance(self.error, Undecryptable)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RevealDecision:
    """The policy's decision about one claim of one person, before it is recorded and the value
    decrypted.
    """

    name: str
    declaration: ClaimDeclaration | None
    subject: PairwiseSubject | None
    row: StoredClaim | None
    """The selected row, which may be expired."""
    refusal: str | None
    is_expired: bool
    is_labelled: bool
    """Whether the claim has a label, and is not the actor's own."""
    consent: str

    @property
    def is_granted(self) -> bool:
        return self.refusal is None and not self.is_expired


def reveal(
    actor: Actor, user: AbstractBaseUser, name: str, *, purpose: str, consent: str = ""
) -> Any:
    """Return the value of a declared claim of user, as the provider sent it, after the event is
    committed.

    None: the sign-in brought no such claim. purpose: the HL7 PurposeOfUse code that the claim was
    stored for and is still declared for, or PATRQT if actor is user. consent: the reference to
    user's consent, for a claim with the label `part2` of another person; then show
    `access.part2.NOTICE` with the value. Claims of the actor's own session precede those that
    outlive sessions; a claim of a session is revealed only in that session. The response to the
    actor's request is then marked as not storable.
    Raises: RevealRefused, after its own event; AuditUnavailable before anything is decrypted;
    ClaimScrubbed if the claim is expired, whether erased or not, by its retention at the sign-in or
    by that of today; Undecryptable.
    """
    (result,) = _authorize_and_reveal(
        actor, [user], [name], purpose=purpose, consents={user.pk: consent}
    )
    return result.get()


def reveal_many(
    actor: Actor,
    users: Iterable[AbstractBaseUser],
    names: str | Iterable[str],
    *,
    purpose: str,
    reason_code: str = "",
    consents: Mapping[Any, str] = MappingProxyType({}),
) -> dict[Any, dict[str, RevealResult]]:
    """Return, by the user's primary key and the claim's name, what `reveal` would return or raise.

    For each REVEAL_BATCH_SIZE claims: one SELECT for the rows, a second one for persons who lack a
    row, one INSERT for the events. Everything is recorded before anything is decrypted, and the
    refusal of one claim does not affect others. reason_code: the `reason` of granted events;
    contains nothing about a person. consents: by primary key, the `consent` of each user.
    Raises: AuditUnavailable, and then nothing was decrypted.
    """
    users_by_id = {}
    for user in users:
        users_by_id[user.pk] = user
    persons = list(users_by_id.values())

    if isinstance(names, str):
        names = [names]
    else:
        names = list(dict.fromkeys(names))

    results = _authorize_and_reveal(
        actor, persons, names, purpose=purpose, reason_code=reason_code, consents=consents
    )
    many = {}
    for user in persons:
        results_by_name = {}
        for name in names:
            results_by_name[name] = next(results)
        many[user.pk] = results_by_name
    return many


def _authorize_and_reveal(
    actor: Actor,
    users: Sequence[AbstractBaseUser],
    names: Sequence[str],
    *,
    purpose: Any,
    consents: Mapping[Any, str],
    reason_code: str = "",
) -> Iterator[RevealResult]:
    """Decide and record everything, then yield each user's claims in the order of names, decrypting
    one at a time.
    """
    now = clock.now()
    # An empty form gives None: refused and recorded like any other value.
    if not isinstance(purpose, str):
        purpose = ""

    decisions: list[_RevealDecision] = []
    size = max(1, REVEAL_BATCH_SIZE // max(1, len(names)))
    for start in range(0, len(users), size):
        batch = list(
            _authorize_claims(
                actor,
                users[start : start + size],
                names,
                purpose=purpose,
                consents=consents,
                now=now,
            )
        )
        if _has_other_persons(actor, users) and _has_granted(batch):
            for observe in disclosure_observers:
                observe(actor.user, now=now)
        events = []
        for decision in batch:
            event = _create_event(
                decision, actor=actor, purpose=purpose, reason_code=reason_code, now=now
            )
            events.append(event)
        record_many(events)
        decisions += batch
    if _has_granted(decisions):
        mark_response_private(actor.request)
    if any(decision.is_granted and decision.is_labelled for decision in decisions):
        add_notice(actor.request)
    retention_key_cache: KeyCache = {}
    return (_reveal_claim(decision, retention_key_cache) for decision in decisions)


def _has_other_persons(actor: Actor, users: Iterable[AbstractBaseUser]) -> bool:
    return not all(_is_self(actor, user) for user in users)


def _has_granted(decisions: Iterable[_RevealDecision]) -> bool:
    return any(decision.is_granted for decision in decisions)


def _authorize_claims(
    actor: Actor,
    users: Sequence[AbstractBaseUser],
    names: Sequence[str],
    *,
    purpose: str,
    consents: Mapping[Any, str],
    now: datetime,
) -> Iterator[_RevealDecision]:
    claims = conf.claims()
    rows, subjects = _get_rows_and_subjects(actor, users, names)
    declared = [claims[name] for name in names if name in claims]
    has_others = _has_other_persons(actor, users)
    permitted_names = set()
    for claim in declared:
        if has_others and can_reveal(actor.user, claim):
            permitted_names.add(claim.name)
    can_reveal_of = cache(partial(can_reveal, actor.user))
    for user in users:
        is_self = _is_self(actor, user)
        key = _get_user_key(user)
        consent = consents.get(user.pk, "")
        for name in names:
            declaration = claims.get(name)
            # Prefer the session's own row, then one that is not expired, then the newest.
            row = min(
                rows.get((key, name), ()),
                key=lambda row: (
                    row.session == NO_SESSION,
                    _is_row_expired(row, declaration, now=now),
                ),
                default=None,
            )
            subject: PairwiseSubject | None
            if row:
                subject = row.subject
            else:
                subject = subjects.get(key)

            is_permitted = is_self or name in permitted_names
            if declaration and subject and not is_permitted:
                is_permitted = can_reveal_of(declaration, subject)
            refusal = _find_refusal(
                actor,
                declaration,
                row,
                purpose=purpose,
                is_self=is_self,
                is_permitted=is_permitted,
                consent=consent,
            )
            is_expired = (
                refusal is None
                and declaration is not None
                and _is_expired(row, subject, declaration, now=now)
            )
            yield _RevealDecision(
                name=name,
                declaration=declaration,
                subject=subject,
                row=row,
                refusal=refusal,
                is_expired=is_expired,
                is_labelled=declaration is not None
                and declaration.label is not None
                and not is_self,
                consent=consent,
            )


def _find_refusal(
    actor: Actor,
    declaration: Any,
    row: StoredClaim | None,
    *,
    purpose: str,
    is_self: bool,
    is_permitted: bool,
    consent: str,
) -> str | None:
    if declaration is None:
        return CLAIM_NOT_DECLARED
    # A claim collected for one purpose is not used for another, even if the declaration was
    # changed.
    is_changed = row is not None and row.purpose != declaration.purpose
    refusal = find_reveal_refusal(
        declared_purpose="" if is_changed else declaration.purpose,
        stated_purpose=purpose,
        is_self=is_self,
        is_permitted=is_permitted,
        has_session=bool(actor.origin.session),
        lacks_consent=lacks_consent(declaration.label, consent),
    )
    if refusal is None and not is_self and row is None and declaration.retention == "session":
        return CLAIM_BOUND_TO_SESSION
    return refusal


def _create_event(
    decision: _RevealDecision, *, actor: Actor, purpose: str, reason_code: str, now: datetime
) -> NewEvent:
    is_labelled = decision.is_granted and decision.is_labelled
    has_response = actor.request is not None

    if is_labelled:
        label_detail = get_disclosure_detail(decision.consent, has_response=has_response)
    else:
        label_detail = {}

    if decision.refusal:
        action = Action.ACCESS_DENIED
    else:
        action = Action.CLAIM_REVEALED

    outcome: EventOutcome
    if decision.is_granted:
        outcome = "success"
    else:
        outcome = "failure"

    if decision.subject:
        subject = str(decision.subject.uuid)
    else:
        subject = ""

    return NewEvent(
        action=action,
        origin=actor.origin,
        now=now,
        outcome=outcome,
        subject=subject,
        purpose=purpose,
        reason=decision.refusal or (Code.CLAIM_SCRUBBED if decision.is_expired else reason_code),
        detail={"claim": decision.name, **label_detail},
    )


def _reveal_claim(decision: _RevealDecision, retention_key_cache: KeyCache) -> RevealResult:
    """Requires: the event is committed."""
    if not decision.is_granted:
        error: PhiOidcError
        if decision.refusal is not None:
            error = RevealRefused(decision.refusal)
        else:
            error = ClaimScrubbed()
        return RevealResult(name=decision.name, error=error)
    if decision.row is None or decision.declaration is None:
        return RevealResult(name=decision.name)
    encrypted: Any = StoredClaim._meta.get_field("value")
    try:
        decision.row.validate_owner(decision.row.subject.user_id)
        value = json.loads(encrypted.decrypt(decision.row, retention_key_cache=retention_key_cache))
    except (KeyRingError, ValueError):
        pass
    else:
        # More members may have been declared when it was stored.
        value = select_declared_members(value, decision.declaration)
        request_secrets.register_secret(value, "claim", location="body")
        return RevealResult(
            name=decision.name, value=value, notice=NOTICE if decision.is_labelled else ""
        )
    # Created outside the except clause: the caught exception's frames may contain decrypted data.
    return RevealResult(name=decision.name, error=Undecryptable())


def _is_self(actor: Actor, user: AbstractBaseUser) -> bool:
    """An anonymous actor and an unsaved user both have no key, and are not the same person."""
    actor_user = actor.user
    is_known = actor_user.is_authenticated and actor_user.is_active and actor_user.pk is not None
    return bool(is_known and actor_user.pk == user.pk)


def _get_rows_and_subjects(
    actor: Actor, users: Sequence[AbstractBaseUser], names: Sequence[str]
) -> tuple[Mapping[tuple[Any, str], Sequence[StoredClaim]], Mapping[Any, PairwiseSubject]]:
    """Return the candidate rows, newest first, by user and name; and the subjects of users who lack
    a row.

    One SELECT if there is a row for each user and name, otherwise two.
    """
    if actor.origin.session:
        own_session = {actor.origin.session}
    else:
        own_session = set()

    keys = {_get_user_key(user) for user in users} - {None}
    rows: dict[tuple[Any, str], list[StoredClaim]] = defaultdict(list)
    found = StoredClaim.objects.filter(
        subject__user__in=keys, session__in=[NO_SESSION, *own_session], name__in=names
    )
    for row in found.select_related("subject").order_by("-obtained_at"):
        rows[row.subject.user_id, row.name].append(row)
    lacking = set()
    for key in keys:
        if any((key, name) not in rows for name in names):
            lacking.add(key)
    subjects: Iterable[PairwiseSubject]
    if lacking:
        subjects = PairwiseSubject.objects.filter(user__in=lacking).order_by("last_seen_at")
    else:
        subjects = ()

    return rows, {subject.user_id: subject for subject in subjects}


def _get_user_key(user: AbstractBaseUser) -> Any:
    """Return the user's primary key with the database's type: it may have been assigned as text."""
    if user.pk is None:
        return None
    return user._meta.pk.to_python(user.pk)


def _is_expired(
    row: StoredClaim | None,
    subject: PairwiseSubject | None,
    declaration: ClaimDeclaration,
    *,
    now: datetime,
) -> bool:
    """An erased row leaves no trace. What the latest sign-in brought is stored until the retention
    has passed.

    So without a row, the sign-in brought no such claim before that time; after it, this is unknown:
    it is expired.
    """
    if row is not None:
        return _is_row_expired(row, declaration, now=now)
    if subject is None or not isinstance(declaration.retention, timedelta):
        return False
    return subject.last_seen_at + declaration.retention <= now


def _is_row_expired(
    row: StoredClaim, declaration: ClaimDeclaration | None, *, now: datetime
) -> bool:
    return get_expiry(row, declaration) <= now
