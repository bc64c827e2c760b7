"""The one way to the value of a claim: policy, then the event, committed, then the value."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from .. import conf
from .._internal import clock, request_secrets
from ..access.no_store import mark_response_private
from ..access.policy import CLAIM_BOUND_TO_SESSION, CLAIM_NOT_DECLARED, find_reveal_refusal
from ..audit.events import Action, NewEvent
from ..audit.recorder import record_many
from ..audit.request_context import Actor
from ..config.claims import ClaimDeclaration
from ..errors import ClaimScrubbed, KeyMissing, RevealRefused, Undecryptable
from ..subjects.models import PairwiseSubject
from .minimization import select_declared_members
from .models import NO_SESSION, StoredClaim

REVEAL_PERMISSION = "django_phi_oidc.reveal_storedclaim"
REVEAL_BATCH_SIZE = 1_000
"""Claims that one SELECT looks up and one INSERT records, which then has some 17,000 values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealResult:
    """What came of one claim of one person. Its repr, which a page or a log may show by accident, has no value."""

    name: str
    value: Any = field(default=None, repr=False)
    """As the OP gave it. None: the sign-in brought no such claim, or there is an error."""
    error: RevealRefused | ClaimScrubbed | Undecryptable | None = None

    def get(self) -> Any:
        """Return the value. Raises: the error, if there is one."""
        if self.error is not None:
            raise self.error
        return self.value

    @property
    def is_refused(self) -> bool:
        """Whether the policy said no."""
        return isinstance(self.error, RevealRefused)

    @property
    def is_scrubbed(self) -> bool:
        """Whether its time is over."""
        return isinstance(self.error, ClaimScrubbed)

    @property
    def is_undecryptable(self) -> bool:
        """Whether it is held, and can't be opened."""
        return isinstance(self.error, Undecryptable)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RevealDecision:
    """One claim of one person and what the policy says of it, before anything is recorded or opened."""

    name: str
    declaration: ClaimDeclaration | None
    subject: PairwiseSubject | None
    row: StoredClaim | None
    """The row that answers, though its time may be over."""
    refusal_code: str | None
    is_expired: bool

    @property
    def is_openable(self) -> bool:
        return self.refusal_code is None and not self.is_expired


def reveal(actor: Actor, user: AbstractBaseUser, name: str, *, purpose: str) -> Any:
    """Return the value of a declared claim of user, as the OP gave it, after the event that permits it is committed.

    None: the sign-in brought no such claim. purpose: HL7 PurposeOfUse code: the one that the claim was stored for and
    is still declared for, or PATRQT when actor is user. The claims of the actor's own session answer first, then those
    that outlive sessions; one that is held for a session is revealed in that session alone. The response to the actor's
    request is then kept by nobody.
    Raises: RevealRefused, after its own event; AuditUnavailable before anything is opened; ClaimScrubbed when the
    time of what was held is over, erased or not; Undecryptable.
    """
    (revealed,) = _authorize_and_reveal(actor, [user], [name], purpose=purpose)
    return revealed.get()


def reveal_many(
    actor: Actor, users: Iterable[AbstractBaseUser], names: str | Iterable[str], *, purpose: str, reason_code: str = ""
) -> dict[Any, dict[str, RevealResult]]:
    """Return what `reveal` would give or raise for each user, by primary key, and each claim, by name.

    One SELECT looks up all rows, a second one the persons who lack one; one INSERT records all; and so for each BATCH
    of claims. Everything is recorded before anything is opened, and what is refused of one is no refusal of another.
    why: a code for the `reason` of what is permitted; nothing of a person.
    Raises: AuditUnavailable, and then nothing was opened.
    """
    persons = list({user.pk: user for user in users}.values())
    asked = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    revealed = _authorize_and_reveal(actor, persons, asked, purpose=purpose, reason_code=reason_code)
    return {user.pk: {each.name: each for each in (next(revealed) for _ in asked)} for user in persons}


def _authorize_and_reveal(
    actor: Actor, users: Sequence[AbstractBaseUser], names: Sequence[str], *, purpose: Any, reason_code: str = ""
) -> Iterator[RevealResult]:
    """Judge and record all, and then yield each user's claims in the order of names, opening one at a time."""
    now = clock.now()
    # A form that was not filled in gives None: a refusal like any other, with its event.
    purpose = purpose if isinstance(purpose, str) else ""
    judged: list[_RevealDecision] = []
    size = max(1, REVEAL_BATCH_SIZE // max(1, len(names)))
    for start in range(0, len(users), size):
        batch = list(_authorize_claims(actor, users[start : start + size], names, purpose=purpose, now=now))
        record_many(
            [_create_event(each, actor=actor, purpose=purpose, reason_code=reason_code, now=now) for each in batch]
        )
        judged += batch
    if any(each.is_openable for each in judged):
        mark_response_private(actor.request)
    return map(_reveal_claim, judged)


def _authorize_claims(
    actor: Actor, users: Sequence[AbstractBaseUser], names: Sequence[str], *, purpose: str, now: datetime
) -> Iterator[_RevealDecision]:
    claims = conf.claims()
    others_permitted = not all(_is_self(actor, user) for user in users) and _can_reveal(actor)
    rows, subjects = _get_rows_and_subjects(actor, users, names)
    for user in users:
        is_self = _is_self(actor, user)
        for name in names:
            declared, row = claims.get(name), _select_row(rows.get((_get_user_key(user), name), ()), now=now)
            subject = row.subject if row else subjects.get(_get_user_key(user))
            refused = _find_refusal(
                actor, declared, row, purpose=purpose, is_self=is_self, is_permitted=is_self or others_permitted
            )
            gone = refused is None and declared is not None and _is_expired(row, subject, declared, now=now)
            yield _RevealDecision(
                name=name, declaration=declared, subject=subject, row=row, refusal_code=refused, is_expired=gone
            )


def _find_refusal(
    actor: Actor,
    declaration: ClaimDeclaration | None,
    emergency: StoredClaim | None,
    *,
    purpose: str,
    is_self: bool,
    is_permitted: bool,
) -> str | None:
    if declaration is None:
        return CLAIM_NOT_DECLARED
    # What was collected for one purpose is not used for another, whichever of the two changed.
    changed = emergency is not None and emergency.purpose != declaration.purpose
    refused = find_reveal_refusal(
        declared_purpose="" if changed else declaration.purpose,
        stated_purpose=purpose,
        is_self=is_self,
        is_permitted=is_permitted,
        has_session=bool(actor.origin.session),
    )
    if refused is None and not is_self and emergency is None and declaration.retention == "session":
        return CLAIM_BOUND_TO_SESSION
    return refused


def _create_event(
    decision: _RevealDecision, *, actor: Actor, purpose: str, reason_code: str, now: datetime
) -> NewEvent:
    return NewEvent(
        action=Action.ACCESS_DENIED if decision.refusal_code else Action.CLAIM_REVEALED,
        origin=actor.origin,
        now=now,
        outcome="success" if decision.is_openable else "failure",
        subject=str(decision.subject.uuid) if decision.subject else "",
        purpose=purpose,
        reason=decision.refusal_code or (ClaimScrubbed.code if decision.is_expired else reason_code),
        detail={"claim": decision.name},
    )


def _reveal_claim(decision: _RevealDecision) -> RevealResult:
    """Requires: the event is committed."""
    if decision.refusal_code is not None:
        return RevealResult(name=decision.name, error=RevealRefused(decision.refusal_code))
    if decision.is_expired:
        return RevealResult(name=decision.name, error=ClaimScrubbed())
    if decision.row is None or decision.declaration is None:
        return RevealResult(name=decision.name)
    sealed: Any = StoredClaim._meta.get_field("value")
    try:
        value = json.loads(sealed.decrypt(decision.row))
    except (KeyMissing, Undecryptable, ValueError):
        pass
    else:
        # It may have been stored when more of it was declared.
        value = select_declared_members(value, decision.declaration)
        request_secrets.register_secret(value, "claim", location="body")
        return RevealResult(name=decision.name, value=value)
    # Made out here: the first one, and the frames that it holds, may know what was opened in vain.
    return RevealResult(name=decision.name, error=Undecryptable())


def _is_self(actor: Actor, user: AbstractBaseUser) -> bool:
    """An anonymous actor and an unsaved user have both no key, and are not the same person for that."""
    who = actor.user
    return bool(who.is_authenticated and who.is_active and who.pk is not None and who.pk == user.pk)


def _can_reveal(actor: Actor) -> bool:
    """A user model without permissions gives none."""
    has_perm = getattr(actor.user, "has_perm", None)
    return has_perm is not None and bool(has_perm(REVEAL_PERMISSION))


def _get_rows_and_subjects(
    actor: Actor, users: Sequence[AbstractBaseUser], names: Sequence[str]
) -> tuple[Mapping[tuple[Any, str], Sequence[StoredClaim]], Mapping[Any, PairwiseSubject]]:
    """Return the rows that may answer, newest first, by user and name; and the subjects of users who lack a row.

    One SELECT when a row answers for each user and name, two when not.
    """
    own = {actor.origin.session} if actor.origin.session else set()
    keys = {_get_user_key(user) for user in users} - {None}
    rows: dict[tuple[Any, str], list[StoredClaim]] = defaultdict(list)
    for row in (
        StoredClaim.objects.filter(subject__user__in=keys, session__in=[NO_SESSION, *own], name__in=names)
        .select_related("subject")
        .order_by("-obtained_at")
    ):
        rows[row.subject.user_id, row.name].append(row)
    lacking = {key for key in keys if any((key, name) not in rows for name in names)}
    subjects = PairwiseSubject.objects.filter(user__in=lacking).order_by("last_seen_at") if lacking else ()
    return rows, {subject.user_id: subject for subject in subjects}


def _get_user_key(user: AbstractBaseUser) -> Any:
    """The user's primary key as the database gives it back: somebody may have assigned it as text."""
    return None if user.pk is None else user._meta.pk.to_python(user.pk)


def _select_row(rows: Sequence[StoredClaim], *, now: datetime) -> StoredClaim | None:
    """The session's own, then what is live, then the newest."""
    return min(rows, key=lambda row: (row.session == NO_SESSION, _is_row_expired(row, now=now)), default=None)


def _is_expired(
    row: StoredClaim | None, subject: PairwiseSubject | None, declaration: ClaimDeclaration, *, now: datetime
) -> bool:
    """Say whether the time of whatever was held is over.

    An erased row leaves nothing behind. What the latest sign-in brought would still be held until the retention after
    it has passed: no row before that means that it did not come, no row after that tells nothing but that.
    """
    if row is not None:
        return _is_row_expired(row, now=now)
    if subject is None or not isinstance(declaration.retention, timedelta):
        return False
    return subject.last_seen_at + declaration.retention <= now


def _is_row_expired(row: StoredClaim, *, now: datetime) -> bool:
    return row.expires_at is not None and row.expires_at <= now
