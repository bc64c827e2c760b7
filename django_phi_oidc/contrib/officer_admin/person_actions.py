"""The actions on the page of a person. Each needs a permission of its own and calls the use case
that owns the rule.

An action is confirmed on a page of its own. What it discloses is only in the response to that form.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...audit.outbox import batch_delivery
from ...claims import disclosure
from ...claims.categories import REVEAL_PERMISSION, can_reveal
from ...claims.models import NO_SESSION, StoredClaim, get_claim_label
from ...claims.retention import scrub_user
from ...config.claims import ClaimDeclaration
from ...provider.labels import get_provider_label
from ...sessions.models import OIDCSession
from ...sessions.sign_in_places import get_device_label
from ...subjects.models import PairwiseSubject
from ..common.person_forms import MultipleChoiceForm
from ..common.person_page_parts import build_disclosure_result
from ..common.person_pages import (
    ActionRequest,
    ActionResult,
    Choices,
    PersonAction,
    person_actions,
    person_sections,
)
from .forms import RevealForm
from .sessions_admin import end_selected_sessions


def get_person_actions() -> Mapping[str, PersonAction]:
    """Return the actions by name, in the order of their sections on the page."""
    positions = {section.name: section.position for section in person_sections}
    actions = sorted(person_actions, key=lambda action: positions[action.section])
    return {action.name: action for action in actions}


def _end_sessions(request: ActionRequest) -> str:
    with batch_delivery():
        return end_selected_sessions(request.chosen_ids, origin=request.origin, now=request.now)


def _live_session_choices(request: ActionRequest) -> Choices:
    rows = OIDCSession.objects.filter(user=request.person.pk, ended_at=None).order_by("-started_at")
    rows = rows.only("id", "browser", "platform", "provider", "started_at")
    session_choices = []
    for row in rows:
        session_choices.append((str(row.pk), _describe_session(row)))
    return session_choices


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
    consents = {person.pk: request.consent}
    revealed = disclosure.reveal_many(
        request.actor,
        [person],
        names,
        consents=consents,
        purpose=data["purpose"],
        reason_code=data["reason"],
    )
    results = revealed[person.pk].values()
    if all(result.is_refused for result in results):
        for result in results:
            result.get()
    return build_disclosure_result(results)


def _claim_choices(request: ActionRequest) -> Choices:
    """Only claims that the actor may reveal and that outlive sessions: others are disclosed to
    their session only.
    """
    rows = StoredClaim.objects.filter(
        subject__in=request.subjects, session=NO_SESSION
    ).select_related("subject")
    found = set()
    for row in rows.defer("value"):
        found.add((row.name, row.subject))
    declared = conf.claims()
    user = request.actor.user
    names = set()
    for name, subject in found:
        if name in declared and can_reveal(user, declared[name], subject):
            names.add(name)
    choices = []
    for name in sorted(names):
        choices.append((name, get_claim_label(name)))
    return choices


def _scrub_claims(request: ActionRequest) -> str:
    count = scrub_user(request.person, origin=request.origin, now=request.now)
    return ngettext("%(count)d claim was erased.", "%(count)d claims were erased.", count) % {
        "count": count
    }


def _can_reveal_any(user: Any, person: Any) -> bool:
    """Return whether user may reveal a stored claim of person. One SELECT, unless a model-wide
    permission suffices.
    """
    stored = []
    for claim in conf.claims().values():
        if claim.retention is not None:
            stored.append(claim)
    if _can_reveal_one_of(stored, user, None):
        return True

    subjects: Iterable[PairwiseSubject]
    if person.pk is not None:
        subjects = PairwiseSubject.objects.filter(user=person.pk)
    else:
        subjects = ()

    return any(_can_reveal_one_of(stored, user, subject) for subject in subjects)


def _can_reveal_one_of(
    claims: Iterable[ClaimDeclaration], user: Any, subject: PairwiseSubject | None
) -> bool:
    return any(can_reveal(user, claim, subject) for claim in claims)


ACTIONS = (
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
        has_other_permission=_can_reveal_any,
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
)
"""The actions of the core. Each other app registers its own."""
