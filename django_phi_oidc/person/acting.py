"""What may be done about a person from their page: each act with a permission of its own, by the use case that has it.

An act is asked about on a page of its own and done by its form. What it shows is in the answer to that form alone.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_variables

from .. import conf, keyring
from ..access.closing import close
from ..access.emergency import REVIEW
from ..access.models import CloseReason, EmergencyAccess
from ..audit.outbox import moving_together
from ..audit.request import Actor
from ..claims import disclosing, revealing
from ..claims.holding import active_holds, place_hold, release_hold
from ..claims.models import NO_SESSION, StoredClaim
from ..claims.scrubbing import scrub_user
from ..sessions.ending import end_sessions
from ..sessions.exporting import export_person
from ..sessions.models import EndReason, OIDCSession
from ..sessions.tasks import revoke_soon
from ..subjects.inviting import invite, is_above, revoke_codes
from ..subjects.models import ActivationCode, PairwiseSubject
from .forms import ActForm, Choices, HoldForm, OneForm, RevealForm, SeveralForm
from .gathering import APP

EXPORT = f"{APP}.export_pairwisesubject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the answer shows, and nothing keeps: words, each with what they say of it."""

    rows: tuple[tuple[str, str], ...] = field(repr=False)
    file: str = field(default="", repr=False)
    """A document to be taken away instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Somebody does something about somebody."""

    actor: Actor
    person: AbstractBaseUser
    now: datetime
    given: dict[str, Any] = field(default_factory=dict, repr=False)
    """What the form was filled in with."""

    @property
    def subjects(self) -> list[PairwiseSubject]:
        """Who the person is here."""
        return list(PairwiseSubject.objects.filter(user=self.person.pk).order_by("pk"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAct:
    """One thing that may be done, and to whom it is left."""

    name: str
    section: str
    permission: str
    title: str | Promise
    tells: str | Promise
    """What will happen."""
    do: Callable[[Asked], str | Shown]
    """Returns what came of it, in words for a message, or what is shown. Raises: PhiOidcError."""
    offers: Callable[[Asked], Choices] = lambda asked: ()
    form: type[ActForm] = ActForm
    lets_in: bool = False
    """Whether it says who signs in to the account: then nobody does it to somebody who may do more than they may."""

    def is_permitted(self, user: Any, person: Any) -> bool:
        """Say whether user may do it to person."""
        return user.has_perm(self.permission) and not (self.lets_in and is_above(person, user))


def _end(asked: Asked) -> str:
    ids = [uuid.UUID(pk) for pk in asked.given["chosen"]]
    with moving_together():
        ended = end_sessions(ids, EndReason.ADMINISTRATOR, origin=asked.actor.origin, now=asked.now)
        revoke_soon([pk for each in ended for pk in each.revocations])
    told = ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", len(ended))
    return told % {"count": len(ended)}


def _live_sessions(asked: Asked) -> Choices:
    rows = OIDCSession.objects.filter(user=asked.person.pk, ended_at=None).order_by("-started_at")
    return [
        (str(row.pk), f"{row.provider}, {row.started_at:%Y-%m-%d %H:%M} UTC")
        for row in rows.only("id", "provider", "started_at")
    ]


@sensitive_variables()
def _reveal(asked: Asked) -> Shown:
    """Raises: AuditUnavailable; RevealRefused where all that was asked for is refused."""
    names, given = asked.given["chosen"], asked.given
    people = revealing.reveal_many(asked.actor, [asked.person], names, purpose=given["purpose"], why=given["reason"])
    revealed = people[asked.person.pk].values()
    if all(each.is_refused for each in revealed):
        for each in revealed:
            each.get()
    return Shown(rows=tuple((each.name, _in_words(each)) for each in revealed))


def _in_words(revealed: revealing.Revealed) -> str:
    if revealed.is_refused:
        return _("It can’t be opened for that purpose.")
    if revealed.is_scrubbed:
        return _("Its time is over.")
    return _("No key opens it.") if revealed.is_undecryptable else _text(revealed.value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _kept_claims(asked: Asked) -> Choices:
    """Those that outlive sessions: of a session's, only that session has a look."""
    rows = StoredClaim.objects.filter(subject__in=asked.subjects, session=NO_SESSION)
    return [(name, name) for name in sorted(set(rows.values_list("name", flat=True)))]


def _scrub(asked: Asked) -> str:
    count = scrub_user(asked.person, origin=asked.actor.origin, now=asked.now)
    return ngettext("%(count)d claim was erased.", "%(count)d claims were erased.", count) % {"count": count}


def _hold(asked: Asked) -> str:
    given = asked.given
    subject, reason, until = uuid.UUID(given["chosen"]), given["reason"], given["until"]
    place_hold(subject, reason=reason, until=until, origin=asked.actor.origin, now=asked.now)
    return _("The hold was placed.")


def _subjects(asked: Asked) -> Choices:
    return [(str(each.uuid), f"{each.uuid} ({each.issuer})") for each in asked.subjects]


def _release(asked: Asked) -> str:
    pks = [uuid.UUID(pk) for pk in asked.given["chosen"]]
    count = sum(release_hold(pk, origin=asked.actor.origin, now=asked.now) for pk in pks)
    return ngettext("%(count)d hold was released.", "%(count)d holds were released.", count) % {"count": count}


def _lasting_holds(asked: Asked) -> Choices:
    return [(str(row.pk), row.reason) for row in active_holds(now=asked.now).filter(subject__in=asked.subjects)]


@sensitive_variables()
def _disclose(asked: Asked) -> Shown:
    """Raises: AuditUnavailable; RevealRefused."""
    held = disclosing.disclose(asked.actor, uuid.UUID(asked.given["chosen"]), purpose="HLEGAL")
    return Shown(
        rows=tuple((each.name, _("No key opens it.") if each.is_undecryptable else _text(each.value)) for each in held)
    )


def _close(asked: Asked) -> str:
    ids = [uuid.UUID(pk) for pk in asked.given["chosen"]]
    closed = close(ids, CloseReason.ADMINISTRATOR, origin=asked.actor.origin, now=asked.now)
    told = ngettext("%(count)d was closed.", "%(count)d were closed.", len(closed))
    return told % {"count": len(closed)}


def _open_emergencies(asked: Asked) -> Choices:
    rows = EmergencyAccess.objects.lasting(now=asked.now).filter(actor=str(asked.person.pk)).order_by("expires_at")
    return [(str(row.pk), row.resource) for row in rows.defer("reason", "note")]


@sensitive_variables()
def _invite(asked: Asked) -> Shown:
    """Raises: InvitationRefused."""
    (made,) = invite(
        [asked.person.pk],
        provider=conf.providers()[asked.given["chosen"]],
        key=keyring.keys("SUBJECT_KEYS")[0],
        lifetime=conf.activation_lifetime(),
        origin=asked.actor.origin,
        now=asked.now,
    )
    return Shown(rows=((_("Activation code"), made.code), (_("Until (UTC)"), f"{made.expires_at:%Y-%m-%d %H:%M}")))


def _inviting_providers(asked: Asked) -> Choices:
    declared = conf.providers().items()
    return [(name, each.label or name) for name, each in declared if each.provisioning == "invitation"]


def _withdraw(asked: Asked) -> str:
    codes = ActivationCode.objects.filter(pk__in=asked.given["chosen"], user=asked.person.pk)
    count = revoke_codes(codes, reason="withdrawn", origin=asked.actor.origin, now=asked.now)
    return ngettext("%(count)d code was revoked.", "%(count)d codes were revoked.", count) % {"count": count}


def _waiting_codes(asked: Asked) -> Choices:
    waiting = ActivationCode.objects.waiting(now=asked.now).filter(user=asked.person.pk)
    return [(str(row.pk), row.provider) for row in waiting.order_by("pk")]


@sensitive_variables()
def _export(asked: Asked) -> Shown:
    """Raises: AuditUnavailable."""
    origin = asked.actor.origin
    exported = export_person(asked.person, asked.subjects, declared=conf.claims(), origin=origin, now=asked.now)
    return Shown(rows=(), file=json.dumps(exported.document, indent=2, ensure_ascii=False))


ACTS = {
    act.name: act
    for act in (
        PersonAct(
            name="export",
            section="subjects",
            permission=EXPORT,
            title=gettext_lazy("Export all that is held"),
            tells=gettext_lazy("You get a file with every value that is held of this person, to give to them."),
            do=_export,
        ),
        PersonAct(
            name="invite",
            section="activation",
            permission=f"{APP}.issue_activationcode",
            title=gettext_lazy("Make an activation code"),
            tells=gettext_lazy("The code is shown once. A code that was made before lets nobody in any more."),
            do=_invite,
            offers=_inviting_providers,
            form=OneForm,
            lets_in=True,
        ),
        PersonAct(
            name="withdraw",
            section="activation",
            permission=f"{APP}.issue_activationcode",
            title=gettext_lazy("Revoke activation codes"),
            tells=gettext_lazy("The codes let nobody in any more."),
            do=_withdraw,
            offers=_waiting_codes,
            form=SeveralForm,
        ),
        PersonAct(
            name="end",
            section="sessions",
            permission=f"{APP}.end_oidcsession",
            title=gettext_lazy("End sessions now"),
            tells=gettext_lazy("The person is signed out, and the tokens of these sessions are revoked."),
            do=_end,
            offers=_live_sessions,
            form=SeveralForm,
        ),
        PersonAct(
            name="reveal",
            section="claims",
            permission=revealing.PERMISSION,
            title=gettext_lazy("Reveal claims"),
            tells=gettext_lazy("The trail keeps that you looked, for what and why. The person may ask who did."),
            do=_reveal,
            offers=_kept_claims,
            form=RevealForm,
        ),
        PersonAct(
            name="scrub",
            section="claims",
            permission=f"{APP}.scrub_storedclaim",
            title=gettext_lazy("Erase all claims"),
            tells=gettext_lazy("All claims of this person are erased now, for good, unless a legal hold keeps them."),
            do=_scrub,
        ),
        PersonAct(
            name="hold",
            section="holds",
            permission=f"{APP}.add_legalhold",
            title=gettext_lazy("Place a legal hold"),
            tells=gettext_lazy("While it lasts, nothing that is held of this person is erased."),
            do=_hold,
            offers=_subjects,
            form=HoldForm,
        ),
        PersonAct(
            name="release",
            section="holds",
            permission=f"{APP}.change_legalhold",
            title=gettext_lazy("Release legal holds"),
            tells=gettext_lazy("What is past its time, and no other hold keeps, is erased by the next scrub."),
            do=_release,
            offers=_lasting_holds,
            form=SeveralForm,
        ),
        PersonAct(
            name="disclose",
            section="holds",
            permission=disclosing.PERMISSION,
            title=gettext_lazy("See what a legal hold keeps"),
            tells=gettext_lazy("The trail keeps that you looked, for the purpose HLEGAL."),
            do=_disclose,
            offers=_subjects,
            form=OneForm,
        ),
        PersonAct(
            name="close",
            section="emergencies",
            permission=REVIEW,
            title=gettext_lazy("Close emergency accesses"),
            tells=gettext_lazy("Nothing more is permitted by them. Each is reviewed on its own page."),
            do=_close,
            offers=_open_emergencies,
            form=SeveralForm,
        ),
    )
}
