"""The actions on the page of a person. Each needs a permission of its own and calls the use case
that owns the rule.

An action is confirmed on a page of its own. What it discloses is only in the response to that form.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...access.no_store import add_notice
from ...audit.events import Origin
from ...audit.outbox import batch_delivery
from ...audit.request_context import Actor
from ...claims import disclosure
from ...claims.categories import REVEAL_PERMISSION, can_reveal, can_reveal_any
from ...claims.models import NO_SESSION, StoredClaim, get_claim_label
from ...claims.retention import scrub_user
from ...provider.labels import get_provider_label
from ...sessions.models import OIDCSession
from ...sessions.sign_in_places import get_device_label
from ...subjects.models import PairwiseSubject
from ..emergency.lifecycle import close_selected_emergencies
from ..emergency.models import EmergencyAccess
from ..emergency.queries import REVIEW_PERMISSION
from ..individual_rights.export import export_person
from ..individual_rights.recipients import remember_recipient
from ..invitations.invitations import can_invite
from ..invitations.models import ActivationCode
from ..legal_holds import legal_hold_disclosure
from ..legal_holds.legal_holds import list_active_holds, place_hold, release_hold
from .forms import (
    ActionForm,
    Choices,
    DiscloseForm,
    ExportForm,
    MultipleChoiceForm,
    PlaceHoldForm,
    RevealForm,
    SingleChoiceForm,
)
from .sessions_admin import end_selected_sessions
from .subjects_admin import invite_user, revoke_selected_codes

EXPORT_PERMISSION = "django_phi_oidc.export_pairwisesubject"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """What the response discloses once: labels and texts."""

    rows: tuple[tuple[str, str], ...] = field(repr=False)
    document: str = field(default="", repr=False)
    """A document to download instead."""
    notice: str = ""
    """A text that must accompany it. Spec: 42 CFR 2.32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequest:
    """An action of actor that concerns person."""

    actor: Actor
    person: AbstractBaseUser
    now: datetime
    form_data: dict[str, Any] = field(default_factory=dict, repr=False)
    """The cleaned data of the form."""

    @property
    def origin(self) -> Origin:
        return self.actor.origin

    @property
    def consent(self) -> str:
        return str(self.form_data.get("consent", ""))

    @property
    def subjects(self) -> list[PairwiseSubject]:
        """The subjects that are linked to the person."""
        return list(PairwiseSubject.objects.filter(user=self.person.pk).order_by("pk"))

    @property
    def chosen_ids(self) -> list[uuid.UUID]:
        return [uuid.UUID(pk) for pk in self.form_data["chosen"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAction:
    """An action, and the permission that it needs."""

    name: str
    section: str
    permission: str
    title: str | Promise
    description: str | Promise
    run: Callable[[ActionRequest], str | ActionResult]
    """Return the result as a message, or what is disclosed. Raises: PhiOidcError."""
    choices: Callable[[ActionRequest], Choices] = lambda request: ()
    form_class: type[ActionForm] = ActionForm
    grants_sign_in: bool = False
    """Whether it decides who signs in to the account: then it needs `can_invite`."""
    has_other_permission: Callable[[Any, Any], bool] = lambda user, person: False
    """Whether user may perform it on person without `permission`."""

    def has_permission(self, user: Any, person: Any) -> bool:
        return user.has_perm(self.permission) or self.has_other_permission(user, person)

    def is_permitted(self, user: Any, person: Any) -> bool:
        return self.has_permission(user, person) and not (
            self.grants_sign_in and not can_invite(user, person)
        )


def _end_sessions(request: ActionRequest) -> str:
    with batch_delivery():
        return end_selected_sessions(request.chosen_ids, origin=request.origin, now=request.now)


def _live_session_choices(request: ActionRequest) -> Choices:
    rows = OIDCSession.objects.filter(user=request.person.pk, ended_at=None).order_by("-started_at")
    rows = rows.only("id", "browser", "platform", "provider", "started_at")
    return [(str(row.pk), _describe_session(row)) for row in rows]


def _describe_session(row: OIDCSession) -> str:
    return _("%(device)s, by %(provider)s, since %(time)s UTC") % {
        "device": get_device_label(row.browser, row.platform),
        "provider": get_provider_label(row.provider),
        "time": f"{row.started_at:%Y-%m-%d %H:%M}",
    }


@sensitive_variables()
def _reveal_claims(request: ActionRequest) -> ActionResult:
    """Raises: AuditUnavailable; RevealRefused when all selected claims are refused."""
    data = request.form_data
    person = request.person
    names = data["chosen"]
    purpose = data["purpose"]
    reason_code = data["reason"]
    consents = {person.pk: request.consent}
    results = disclosure.reveal_many(
        request.actor, [person], names, consents=consents, purpose=purpose, reason_code=reason_code
    )[person.pk].values()
    if all(result.is_refused for result in results):
        for result in results:
            result.get()
    return _build_result(results)


def _build_result(
    claims: Collection[disclosure.RevealResult | legal_hold_disclosure.HeldClaim],
) -> ActionResult:
    rows = tuple((get_claim_label(claim.name), _describe_value(claim)) for claim in claims)
    return ActionResult(
        rows=rows, notice=next((claim.notice for claim in claims if claim.notice), "")
    )


def _describe_value(claim: Any) -> str:
    if getattr(claim, "is_refused", False):
        return _(
            "Not shown: you do not have the permission for this purpose, or the consent is missing."
        )
    if getattr(claim, "is_scrubbed", False):
        return _("Its retention period has ended.")
    if claim.is_undecryptable:
        return _("It cannot be decrypted with the present keys.")

    if isinstance(claim.value, str):
        return claim.value
    return json.dumps(claim.value, ensure_ascii=False, indent=2)


def _claim_choices(request: ActionRequest) -> Choices:
    """Only claims that the actor may reveal and that outlive sessions: others are disclosed to
    their session only.
    """
    rows = StoredClaim.objects.filter(
        subject__in=request.subjects, session=NO_SESSION
    ).select_related("subject")
    found = {(row.name, row.subject) for row in rows.defer("value")}
    declared = conf.claims()
    user = request.actor.user
    names = {
        name
        for name, subject in found
        if name in declared and can_reveal(user, declared[name], subject)
    }
    return [(name, get_claim_label(name)) for name in sorted(names)]


def _scrub_claims(request: ActionRequest) -> str:
    count = scrub_user(request.person, origin=request.origin, now=request.now)
    return ngettext("%(count)d claim was erased.", "%(count)d claims were erased.", count) % {
        "count": count
    }


def _place_hold(request: ActionRequest) -> str:
    data = request.form_data
    subject = uuid.UUID(data["chosen"])
    reason = data["reason"]
    until = data["until"]
    place_hold(subject, reason=reason, until=until, origin=request.origin, now=request.now)
    return _("The hold was placed.")


def _subject_choices(request: ActionRequest) -> Choices:
    subjects = request.subjects
    issuers = Counter(subject.issuer for subject in subjects)
    labels = (
        row.issuer if issuers[row.issuer] == 1 else f"{row.issuer} ({row.uuid})" for row in subjects
    )
    return [(str(row.uuid), label) for row, label in zip(subjects, labels, strict=True)]


def _release_holds(request: ActionRequest) -> str:
    count = sum(
        release_hold(pk, origin=request.origin, now=request.now) for pk in request.chosen_ids
    )
    return ngettext("%(count)d hold was released.", "%(count)d holds were released.", count) % {
        "count": count
    }


def _active_hold_choices(request: ActionRequest) -> Choices:
    rows = list_active_holds(now=request.now).filter(subject__in=request.subjects)
    return [(str(row.pk), row.reason) for row in rows]


@sensitive_variables()
def _disclose_held_claims(request: ActionRequest) -> ActionResult:
    subject = uuid.UUID(request.form_data["chosen"])
    return _build_result(
        legal_hold_disclosure.disclose_held_claims(
            request.actor, subject, purpose="HLEGAL", consent=request.consent
        )
    )


def _open_emergency_choices(request: ActionRequest) -> Choices:
    rows = EmergencyAccess.objects.currently_open(now=request.now).filter(
        actor=str(request.person.pk)
    )
    return [
        (str(row.pk), row.resource) for row in rows.order_by("expires_at").defer("reason", "note")
    ]


@sensitive_variables()
def _issue_activation_code(request: ActionRequest) -> ActionResult:
    provider = request.form_data["chosen"]
    invitation = invite_user(request.person, provider, origin=request.origin, now=request.now)
    expires_at = f"{invitation.expires_at:%Y-%m-%d %H:%M}"
    return ActionResult(
        rows=((_("Activation code"), invitation.code), (_("Until (UTC)"), expires_at))
    )


def _provider_choices(request: ActionRequest) -> Choices:
    providers = conf.providers().items()
    return [
        (name, provider.label or name)
        for name, provider in providers
        if provider.provisioning == "invitation"
    ]


def _revoke_activation_codes(request: ActionRequest) -> str:
    codes = ActivationCode.objects.filter(
        pk__in=request.form_data["chosen"], user=request.person.pk
    )
    return revoke_selected_codes(codes, origin=request.origin, now=request.now)


def _activation_code_choices(request: ActionRequest) -> Choices:
    rows = ActivationCode.objects.redeemable(now=request.now).filter(user=request.person.pk)
    return [(str(row.pk), row.provider) for row in rows.order_by("pk")]


@sensitive_variables()
def _export_person(request: ActionRequest) -> ActionResult:
    options: dict[str, Any] = {
        "claim_declarations": conf.claims(),
        "origin": request.origin,
        "now": request.now,
    }
    data = request.form_data
    options |= {
        "purpose": data["purpose"],
        "reason_code": data["reason"],
        "actor_user": request.actor.user,
    }
    remember_recipient(request.actor.user, now=request.now)
    exported = export_person(request.person, request.subjects, consent=request.consent, **options)
    if exported.document["redisclosure_notice"]:
        add_notice(request.actor.request)
    return ActionResult(
        rows=(), document=json.dumps(exported.document, indent=2, ensure_ascii=False)
    )


_ACTIONS = (
    PersonAction(
        name="export",
        section="subjects",
        permission=EXPORT_PERMISSION,
        title=gettext_lazy("Export all data"),
        description=gettext_lazy(
            "You get a file with every stored value of this person, to hand over to them."
        ),
        run=_export_person,
        form_class=ExportForm,
    ),
    PersonAction(
        name="invite",
        section="activation",
        permission="phi_oidc_invitations.issue_activationcode",
        title=gettext_lazy("Make an activation code"),
        description=gettext_lazy(
            "The code is shown once. An earlier code for the same provider becomes invalid."
        ),
        run=_issue_activation_code,
        choices=_provider_choices,
        form_class=SingleChoiceForm,
        grants_sign_in=True,
    ),
    PersonAction(
        name="withdraw",
        section="activation",
        permission="phi_oidc_invitations.issue_activationcode",
        title=gettext_lazy("Revoke activation codes"),
        description=gettext_lazy("The codes can no longer be redeemed."),
        run=_revoke_activation_codes,
        choices=_activation_code_choices,
        form_class=MultipleChoiceForm,
    ),
    PersonAction(
        name="end",
        section="sessions",
        permission="django_phi_oidc.end_oidcsession",
        title=gettext_lazy("End sessions now"),
        description=gettext_lazy(
            "The person is signed out, and the tokens of these sessions are revoked."
        ),
        run=_end_sessions,
        choices=_live_session_choices,
        form_class=MultipleChoiceForm,
    ),
    PersonAction(
        name="reveal",
        section="claims",
        permission=REVEAL_PERMISSION,
        has_other_permission=can_reveal_any,
        title=gettext_lazy("Reveal claims"),
        description=gettext_lazy(
            "The audit log records that you viewed them, with purpose "
            "and reason. The person may ask who did."
        ),
        run=_reveal_claims,
        choices=_claim_choices,
        form_class=RevealForm,
    ),
    PersonAction(
        name="scrub",
        section="claims",
        permission="django_phi_oidc.scrub_storedclaim",
        title=gettext_lazy("Erase all claims"),
        description=gettext_lazy(
            "All claims of this person are permanently erased now, unless a legal hold keeps them."
        ),
        run=_scrub_claims,
    ),
    PersonAction(
        name="hold",
        section="holds",
        permission="phi_oidc_legal_holds.add_legalhold",
        title=gettext_lazy("Place a legal hold"),
        description=gettext_lazy("While it is active, no stored data of this person is erased."),
        run=_place_hold,
        choices=_subject_choices,
        form_class=PlaceHoldForm,
    ),
    PersonAction(
        name="release",
        section="holds",
        permission="phi_oidc_legal_holds.change_legalhold",
        title=gettext_lazy("Release legal holds"),
        description=gettext_lazy(
            "The next scrub erases claims past their retention that no other hold keeps."
        ),
        run=_release_holds,
        choices=_active_hold_choices,
        form_class=MultipleChoiceForm,
    ),
    PersonAction(
        name="disclose",
        section="holds",
        permission=legal_hold_disclosure.DISCLOSE_PERMISSION,
        title=gettext_lazy("View what a legal hold keeps"),
        description=gettext_lazy(
            "The audit log records that you viewed it, for the purpose “Legal”."
        ),
        run=_disclose_held_claims,
        choices=_subject_choices,
        form_class=DiscloseForm,
    ),
    PersonAction(
        name="close",
        section="emergencies",
        permission=REVIEW_PERMISSION,
        title=gettext_lazy("Close emergency accesses"),
        description=gettext_lazy("They end now. Each must still be reviewed on its own page."),
        run=lambda request: close_selected_emergencies(
            request.chosen_ids, origin=request.origin, now=request.now
        ),
        choices=_open_emergency_choices,
        form_class=MultipleChoiceForm,
    ),
)
PERSON_ACTIONS = {action.name: action for action in _ACTIONS}
