"""The one way to the value of a claim: policy, then the event, committed, then the value."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from .. import clock, conf, secrecy
from ..access.policy import CLAIM_NOT_DECLARED, CLAIM_OF_SESSION, refuse_reveal
from ..access.responding import keep_private
from ..audit.events import Act, Action
from ..audit.recording import record_many
from ..audit.request import Actor
from ..declarations import ClaimDeclaration
from ..errors import ClaimScrubbed, KeyMissing, RevealRefused, Undecryptable
from ..subjects.models import PairwiseSubject
from .catalog import narrow
from .models import NO_SESSION, StoredClaim

PERMISSION = "django_phi_oidc.reveal_storedclaim"
BATCH = 1_000
"""Claims that one SELECT looks up and one INSERT records, which then has some 17,000 values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
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
class _Judged:
    """One claim of one person and what the policy says of it, before anything is recorded or opened."""

    name: str
    declared: ClaimDeclaration | None
    subject: PairwiseSubject | None
    row: StoredClaim | None
    """The row that answers, though its time may be over."""
    refused: str | None
    gone: bool

    @property
    def opens(self) -> bool:
        return self.refused is None and not self.gone


def reveal(actor: Actor, user: AbstractBaseUser, name: str, *, purpose: str) -> Any:
    """Return the value of a declared claim of user, as the OP gave it, after the event that permits it is committed.

    None: the sign-in brought no such claim. purpose: HL7 PurposeOfUse code: the one that the claim was stored for and
    is still declared for, or PATRQT when actor is user. The claims of the actor's own session answer first, then those
    that outlive sessions; one that is held for a session is revealed in that session alone. The response to the actor's
    request is then kept by nobody.
    Raises: RevealRefused, after its own event; AuditUnavailable before anything is opened; ClaimScrubbed when the
    time of what was held is over, erased or not; Undecryptable.
    """
    (revealed,) = _reveal(actor, [user], [name], purpose=purpose)
    return revealed.get()


def reveal_many(
    actor: Actor, users: Iterable[AbstractBaseUser], names: str | Iterable[str], *, purpose: str, why: str = ""
) -> dict[Any, dict[str, Revealed]]:
    """Return what `reveal` would give or raise for each user, by primary key, and each claim, by name.

    One SELECT looks up all rows, a second one the persons who lack one; one INSERT records all; and so for each BATCH
    of claims. Everything is recorded before anything is opened, and what is refused of one is no refusal of another.
    why: a code for the `reason` of what is permitted; nothing of a person.
    Raises: AuditUnavailable, and then nothing was opened.
    """
    persons = list({user.pk: user for user in users}.values())
    asked = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    revealed = _reveal(actor, persons, asked, purpose=purpose, why=why)
    return {user.pk: {each.name: each for each in (next(revealed) for _ in asked)} for user in persons}


def _reveal(
    actor: Actor, users: Sequence[AbstractBaseUser], names: Sequence[str], *, purpose: Any, why: str = ""
) -> Iterator[Revealed]:
    """Judge and record all, and then yield each user's claims in the order of names, opening one at a time."""
    now = clock.now()
    # A form that was not filled in gives None: a refusal like any other, with its event.
    purpose = purpose if isinstance(purpose, str) else ""
    judged: list[_Judged] = []
    size = max(1, BATCH // max(1, len(names)))
    for start in range(0, len(users), size):
        batch = list(_judge(actor, users[start : start + size], names, purpose=purpose, now=now))
        record_many([_act(each, actor=actor, purpose=purpose, why=why, now=now) for each in batch])
        judged += batch
    if any(each.opens for each in judged):
        keep_private(actor.request)
    return map(_open, judged)


def _judge(
    actor: Actor, users: Sequence[AbstractBaseUser], names: Sequence[str], *, purpose: str, now: datetime
) -> Iterator[_Judged]:
    claims = conf.claims()
    others_permitted = not all(_is_self(actor, user) for user in users) and _may_reveal(actor)
    rows, subjects = _look_up(actor, users, names)
    for user in users:
        is_self = _is_self(actor, user)
        for name in names:
            declared, row = claims.get(name), _first_to_answer(rows.get((_key(user), name), ()), now=now)
            subject = row.subject if row else subjects.get(_key(user))
            refused = _refuse(
                actor, declared, row, purpose=purpose, is_self=is_self, permitted=is_self or others_permitted
            )
            gone = refused is None and declared is not None and _is_gone(row, subject, declared, now=now)
            yield _Judged(name=name, declared=declared, subject=subject, row=row, refused=refused, gone=gone)


def _refuse(
    actor: Actor,
    declared: ClaimDeclaration | None,
    row: StoredClaim | None,
    *,
    purpose: str,
    is_self: bool,
    permitted: bool,
) -> str | None:
    if declared is None:
        return CLAIM_NOT_DECLARED
    # What was collected for one purpose is not used for another, whichever of the two changed.
    changed = row is not None and row.purpose != declared.purpose
    refused = refuse_reveal(
        declared_purpose="" if changed else declared.purpose,
        stated_purpose=purpose,
        is_self=is_self,
        permitted=permitted,
        has_session=bool(actor.origin.session),
    )
    if refused is None and not is_self and row is None and declared.retention == "session":
        return CLAIM_OF_SESSION
    return refused


def _act(judged: _Judged, *, actor: Actor, purpose: str, why: str, now: datetime) -> Act:
    return Act(
        action=Action.ACCESS_DENIED if judged.refused else Action.CLAIM_REVEALED,
        origin=actor.origin,
        now=now,
        outcome="success" if judged.opens else "failure",
        subject=str(judged.subject.uuid) if judged.subject else "",
        purpose=purpose,
        reason=judged.refused or (ClaimScrubbed.code if judged.gone else why),
        detail={"claim": judged.name},
    )


def _open(judged: _Judged) -> Revealed:
    """Requires: the event is committed."""
    if judged.refused is not None:
        return Revealed(name=judged.name, error=RevealRefused(judged.refused))
    if judged.gone:
        return Revealed(name=judged.name, error=ClaimScrubbed())
    if judged.row is None or judged.declared is None:
        return Revealed(name=judged.name)
    sealed: Any = StoredClaim._meta.get_field("value")
    try:
        value = json.loads(sealed.open(judged.row))
    except (KeyMissing, Undecryptable, ValueError):
        pass
    else:
        # It may have been stored when more of it was declared.
        value = narrow(value, judged.declared)
        secrecy.learn(value, "claim", place="body")
        return Revealed(name=judged.name, value=value)
    # Made out here: the first one, and the frames that it holds, may know what was opened in vain.
    return Revealed(name=judged.name, error=Undecryptable())


def _is_self(actor: Actor, user: AbstractBaseUser) -> bool:
    """An anonymous actor and an unsaved user have both no key, and are not the same person for that."""
    who = actor.user
    return bool(who.is_authenticated and who.is_active and who.pk is not None and who.pk == user.pk)


def _may_reveal(actor: Actor) -> bool:
    """A user model without permissions gives none."""
    has_perm = getattr(actor.user, "has_perm", None)
    return has_perm is not None and bool(has_perm(PERMISSION))


def _look_up(
    actor: Actor, users: Sequence[AbstractBaseUser], names: Sequence[str]
) -> tuple[Mapping[tuple[Any, str], Sequence[StoredClaim]], Mapping[Any, PairwiseSubject]]:
    """Return the rows that may answer, newest first, by user and name; and the subjects of users who lack a row.

    One SELECT when a row answers for each user and name, two when not.
    """
    own = {actor.origin.session} if actor.origin.session else set()
    keys = {_key(user) for user in users} - {None}
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


def _key(user: AbstractBaseUser) -> Any:
    """The user's primary key as the database gives it back: somebody may have assigned it as text."""
    return None if user.pk is None else user._meta.pk.to_python(user.pk)


def _first_to_answer(rows: Sequence[StoredClaim], *, now: datetime) -> StoredClaim | None:
    """The session's own, then what is live, then the newest."""
    return min(rows, key=lambda row: (row.session == NO_SESSION, _is_over(row, now=now)), default=None)


def _is_gone(
    row: StoredClaim | None, subject: PairwiseSubject | None, declared: ClaimDeclaration, *, now: datetime
) -> bool:
    """Say whether the time of whatever was held is over.

    An erased row leaves nothing behind. What the latest sign-in brought would still be held until the retention after
    it has passed: no row before that means that it did not come, no row after that tells nothing but that.
    """
    if row is not None:
        return _is_over(row, now=now)
    if subject is None or not isinstance(declared.retention, timedelta):
        return False
    return subject.last_seen_at + declared.retention <= now


def _is_over(row: StoredClaim, *, now: datetime) -> bool:
    return row.expires_at is not None and row.expires_at <= now
