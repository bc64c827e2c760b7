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

from .. import conf
from ..access.emergency.lifecycle import close_emergencies
from ..access.emergency.models import CloseReason, EmergencyAccess
from ..access.emergency.queries import REVIEW_PERMISSION
from ..audit.outbox import batch_delivery
from ..audit.request_context import Actor
from ..claims import disclosure, legal_hold_disclosure
from ..claims.legal_holds import list_active_holds, place_hold, release_hold
from ..claims.models import NO_SESSION, StoredClaim
from ..claims.retention import scrub_user
from ..crypto import keyring
from ..individual_rights.export import export_person
from ..sessions.lifecycle import end_sessions
from ..sessions.models import EndReason, OIDCSession
from ..sessions.tasks import revoke_after_commit
from ..subjects.invitations import create_invitations, has_more_privileges, revoke_activation_codes
from ..subjects.models import ActivationCode, PairwiseSubject
from .forms import ActionForm, Choices, MultipleChoiceForm, PlaceHoldForm, RevealForm, SingleChoiceForm
from .person_sections import APP_LABEL

EXPORT_PERMISSION = f"{APP_LABEL}.export_pairwisesubject"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """What the answer shows, and nothing keeps: words, each with what they say of it."""

    rows: tuple[tuple[str, str], ...] = field(repr=False)
    document: str = field(default="", repr=False)
    """A document to be taken away instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequest:
    """Somebody does something about somebody."""

    actor: Actor
    person: AbstractBaseUser
    now: datetime
    form_data: dict[str, Any] = field(default_factory=dict, repr=False)
    """What the form was filled in with."""

    @property
    def subjects(self) -> list[PairwiseSubject]:
        """Who the person is here."""
        return list(PairwiseSubject.objects.filter(user=self.person.pk).order_by("pk"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAction:
    """One thing that may be done, and to whom it is left."""

    name: str
    section: str
    permission: str
    title: str | Promise
    description: str | Promise
    """What will happen."""
    run: Callable[[ActionRequest], str | ActionResult]
    """Returns what came of it, in words for a message, or what is shown. Raises: PhiOidcError."""
    choices: Callable[[ActionRequest], Choices] = lambda asked: ()
    form_class: type[ActionForm] = ActionForm
    grants_sign_in: bool = False
    """Whether it says who signs in to the account: then nobody does it to somebody who may do more than they may."""

    def is_permitted(self, user: Any, person: Any) -> bool:
        """Say whether user may do it to person."""
        return user.has_perm(self.permission) and not (self.grants_sign_in and has_more_privileges(person, user))


def _end_sessions(action_request: ActionRequest) -> str:
    ids = [uuid.UUID(pk) for pk in action_request.form_data["chosen"]]
    with batch_delivery():
        ended = end_sessions(ids, EndReason.ADMINISTRATOR, origin=action_request.actor.origin, now=action_request.now)
        revoke_after_commit([pk for each in ended for pk in each.revocation_ids])
    told = ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", len(ended))
    return told % {"count": len(ended)}


def _live_session_choices(action_request: ActionRequest) -> Choices:
    rows = OIDCSession.objects.filter(user=action_request.person.pk, ended_at=None).order_by("-started_at")
    return [
        (str(row.pk), f"{row.provider}, {row.started_at:%Y-%m-%d %H:%M} UTC")
        for row in rows.only("id", "provider", "started_at")
    ]


@sensitive_variables()
def _reveal_claims(action_request: ActionRequest) -> ActionResult:
    """Raises: AuditUnavailable; RevealRefused where all that was asked for is refused."""
    names, given = action_request.form_data["chosen"], action_request.form_data
    people = disclosure.reveal_many(
        action_request.actor, [action_request.person], names, purpose=given["purpose"], reason_code=given["reason"]
    )
    revealed = people[action_request.person.pk].values()
    if all(each.is_refused for each in revealed):
        for each in revealed:
            each.get()
    return ActionResult(rows=tuple((each.name, _describe_revealed(each)) for each in revealed))


def _describe_revealed(revealed: disclosure.RevealResult) -> str:
    if revealed.is_refused:
        return _("It can’t be opened for that purpose.")
    if revealed.is_scrubbed:
        return _("Its time is over.")
    return _("No key opens it.") if revealed.is_undecryptable else _format_value(revealed.value)


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _claim_choices(action_request: ActionRequest) -> Choices:
    """Those that outlive sessions: of a session's, only that session has a look."""
    rows = StoredClaim.objects.filter(subject__in=action_request.subjects, session=NO_SESSION)
    return [(name, name) for name in sorted(set(rows.values_list("name", flat=True)))]


def _scrub_claims(action_request: ActionRequest) -> str:
    count = scrub_user(action_request.person, origin=action_request.actor.origin, now=action_request.now)
    return ngettext("%(count)d claim was erased.", "%(count)d claims were erased.", count) % {"count": count}


def _place_hold(action_request: ActionRequest) -> str:
    given = action_request.form_data
    subject, reason, until = uuid.UUID(given["chosen"]), given["reason"], given["until"]
    place_hold(subject, reason=reason, until=until, origin=action_request.actor.origin, now=action_request.now)
    return _("The hold was placed.")


def _subject_choices(action_request: ActionRequest) -> Choices:
    return [(str(each.uuid), f"{each.uuid} ({each.issuer})") for each in action_request.subjects]


def _release_holds(action_request: ActionRequest) -> str:
    pks = [uuid.UUID(pk) for pk in action_request.form_data["chosen"]]
    count = sum(release_hold(pk, origin=action_request.actor.origin, now=action_request.now) for pk in pks)
    return ngettext("%(count)d hold was released.", "%(count)d holds were released.", count) % {"count": count}


def _active_hold_choices(action_request: ActionRequest) -> Choices:
    return [
        (str(row.pk), row.reason)
        for row in list_active_holds(now=action_request.now).filter(subject__in=action_request.subjects)
    ]


@sensitive_variables()
def _disclose_held_claims(action_request: ActionRequest) -> ActionResult:
    """Raises: AuditUnavailable; RevealRefused."""
    held = legal_hold_disclosure.disclose_held_claims(
        action_request.actor, uuid.UUID(action_request.form_data["chosen"]), purpose="HLEGAL"
    )
    return ActionResult(
        rows=tuple(
            (each.name, _("No key opens it.") if each.is_undecryptable else _format_value(each.value)) for each in held
        )
    )


def _close_emergencies(action_request: ActionRequest) -> str:
    ids = [uuid.UUID(pk) for pk in action_request.form_data["chosen"]]
    closed = close_emergencies(
        ids, CloseReason.ADMINISTRATOR, origin=action_request.actor.origin, now=action_request.now
    )
    told = ngettext("%(count)d was closed.", "%(count)d were closed.", len(closed))
    return told % {"count": len(closed)}


def _open_emergency_choices(action_request: ActionRequest) -> Choices:
    rows = (
        EmergencyAccess.objects.currently_open(now=action_request.now)
        .filter(actor=str(action_request.person.pk))
        .order_by("expires_at")
    )
    return [(str(row.pk), row.resource) for row in rows.defer("reason", "note")]


@sensitive_variables()
def _issue_activation_code(action_request: ActionRequest) -> ActionResult:
    """Raises: InvitationRefused."""
    (made,) = create_invitations(
        [action_request.person.pk],
        provider=conf.providers()[action_request.form_data["chosen"]],
        key=keyring.get_keys("subject")[0],
        lifetime=conf.activation_lifetime(),
        origin=action_request.actor.origin,
        now=action_request.now,
    )
    return ActionResult(
        rows=((_("Activation code"), made.code), (_("Until (UTC)"), f"{made.expires_at:%Y-%m-%d %H:%M}"))
    )


def _provider_choices(action_request: ActionRequest) -> Choices:
    declared = conf.providers().items()
    return [(name, each.label or name) for name, each in declared if each.provisioning == "invitation"]


def _revoke_activation_codes(action_request: ActionRequest) -> str:
    codes = ActivationCode.objects.filter(pk__in=action_request.form_data["chosen"], user=action_request.person.pk)
    count = revoke_activation_codes(
        codes, reason="withdrawn", origin=action_request.actor.origin, now=action_request.now
    )
    return ngettext("%(count)d code was revoked.", "%(count)d codes were revoked.", count) % {"count": count}


def _activation_code_choices(action_request: ActionRequest) -> Choices:
    waiting = ActivationCode.objects.redeemable(now=action_request.now).filter(user=action_request.person.pk)
    return [(str(row.pk), row.provider) for row in waiting.order_by("pk")]


@sensitive_variables()
def _export_person(action_request: ActionRequest) -> ActionResult:
    """Raises: AuditUnavailable."""
    origin = action_request.actor.origin
    exported = export_person(
        action_request.person,
        action_request.subjects,
        claim_declarations=conf.claims(),
        origin=origin,
        now=action_request.now,
    )
    return ActionResult(rows=(), document=json.dumps(exported.document, indent=2, ensure_ascii=False))


PERSON_ACTIONS = {
    act.name: act
    for act in (
        PersonAction(
            name="export",
            section="subjects",
            permission=EXPORT_PERMISSION,
            title=gettext_lazy("Export all that is held"),
            description=gettext_lazy("You get a file with every value that is held of this person, to give to them."),
            run=_export_person,
        ),
        PersonAction(
            name="invite",
            section="activation",
            permission=f"{APP_LABEL}.issue_activationcode",
            title=gettext_lazy("Make an activation code"),
            description=gettext_lazy("The code is shown once. A code that was made before lets nobody in any more."),
            run=_issue_activation_code,
            choices=_provider_choices,
            form_class=SingleChoiceForm,
            grants_sign_in=True,
        ),
        PersonAction(
            name="withdraw",
            section="activation",
            permission=f"{APP_LABEL}.issue_activationcode",
            title=gettext_lazy("Revoke activation codes"),
            description=gettext_lazy("The codes let nobody in any more."),
            run=_revoke_activation_codes,
            choices=_activation_code_choices,
            form_class=MultipleChoiceForm,
        ),
        PersonAction(
            name="end",
            section="sessions",
            permission=f"{APP_LABEL}.end_oidcsession",
            title=gettext_lazy("End sessions now"),
            description=gettext_lazy("The person is signed out, and the tokens of these sessions are revoked."),
            run=_end_sessions,
            choices=_live_session_choices,
            form_class=MultipleChoiceForm,
        ),
        PersonAction(
            name="reveal",
            section="claims",
            permission=disclosure.REVEAL_PERMISSION,
            title=gettext_lazy("Reveal claims"),
            description=gettext_lazy("The trail keeps that you looked, for what and why. The person may ask who did."),
            run=_reveal_claims,
            choices=_claim_choices,
            form_class=RevealForm,
        ),
        PersonAction(
            name="scrub",
            section="claims",
            permission=f"{APP_LABEL}.scrub_storedclaim",
            title=gettext_lazy("Erase all claims"),
            description=gettext_lazy(
                "All claims of this person are erased now, for good, unless a legal hold keeps them."
            ),
            run=_scrub_claims,
        ),
        PersonAction(
            name="hold",
            section="holds",
            permission=f"{APP_LABEL}.add_legalhold",
            title=gettext_lazy("Place a legal hold"),
            description=gettext_lazy("While it lasts, nothing that is held of this person is erased."),
            run=_place_hold,
            choices=_subject_choices,
            form_class=PlaceHoldForm,
        ),
        PersonAction(
            name="release",
            section="holds",
            permission=f"{APP_LABEL}.change_legalhold",
            title=gettext_lazy("Release legal holds"),
            description=gettext_lazy("What is past its time, and no other hold keeps, is erased by the next scrub."),
            run=_release_holds,
            choices=_active_hold_choices,
            form_class=MultipleChoiceForm,
        ),
        PersonAction(
            name="disclose",
            section="holds",
            permission=legal_hold_disclosure.DISCLOSE_PERMISSION,
            title=gettext_lazy("See what a legal hold keeps"),
            description=gettext_lazy("The trail keeps that you looked, for the purpose HLEGAL."),
            run=_disclose_held_claims,
            choices=_subject_choices,
            form_class=SingleChoiceForm,
        ),
        PersonAction(
            name="close",
            section="emergencies",
            permission=REVIEW_PERMISSION,
            title=gettext_lazy("Close emergency accesses"),
            description=gettext_lazy("Nothing more is permitted by them. Each is reviewed on its own page."),
            run=_close_emergencies,
            choices=_open_emergency_choices,
            form_class=MultipleChoiceForm,
        ),
    )
}
