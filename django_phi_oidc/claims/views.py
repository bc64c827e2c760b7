"""A page that shows masked claims, asks for a purpose, and then reveals them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.forms import Form
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from django.views.generic.base import ContextMixin, TemplateResponseMixin

from .. import conf
from ..access.enforcement import suppress_not_found
from ..audit.purposes import PATIENT_REQUEST
from ..audit.request_context import Actor
from ..config.claims import ClaimDeclaration
from ..errors import AuditUnavailable
from .categories import list_names_hidden_of
from .disclosure import RevealResult, reveal_many
from .forms import PurposeForm
from .masking import MaskedClaim


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayedClaim:
    """A claim on the page: its declaration, the mask, and the result after a purpose was stated."""

    declared: ClaimDeclaration
    masked: MaskedClaim
    revealed: RevealResult | None = None


class RevealMixin(TemplateResponseMixin, ContextMixin):
    """A view that shows a person's claims masked, and on POST reveals those permitted for the
    chosen purpose.

    Place it before TemplateView. The template gets `claims` (a list of DisplayedClaim), `form`,
    `redisclosure_notice` (to be shown, unless empty), and after a disclosure `purpose`; it reveals
    nothing itself. GET never reveals. The status is 400 without a purpose, 403 if nothing may be
    revealed for it, and 503 if the audit log is unavailable, each with an error on the form. The
    project must restrict access to the view, and render Django's CSRF token in the form.
    """

    request: HttpRequest
    claim_names: Sequence[str] = ()
    """In the order of the page; empty: all declared claims with a retention."""
    form_class: type[PurposeForm] = PurposeForm
    initial_purpose = ""
    """The preselected purpose; preferably none."""

    def get_person(self) -> AbstractBaseUser:
        """Return the person whose claims are shown; by default the signed-in user."""
        return cast(AbstractBaseUser, self.request.user)

    def get_consent(self) -> str:
        """Return the reference to the person's consent, for claims with a label; by default
        none.
        """
        return ""

    def get_claim_declarations(self) -> Mapping[str, ClaimDeclaration]:
        claims = conf.claims()
        names = self.claim_names or [
            name for name, claim in claims.items() if claim.retention is not None
        ]
        claim_declarations = {}
        for name in names:
            if name in claims:
                claim_declarations[name] = claims[name]
        return claim_declarations

    def get_form(self, data: Any = None) -> PurposeForm:
        """Return the form for these claims, bound if there are data."""
        claims = self.get_claim_declarations().values()
        initial = {"purpose": self.initial_purpose}
        return self.form_class(data, claims=claims, is_own=self._is_own_data(), initial=initial)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        revealed: Mapping[str, RevealResult] = kwargs.pop("revealed", {})
        actor = Actor.from_request(self.request)
        person = self.get_person()
        claims = []
        for name, claim in self.get_claim_declarations().items():
            claims.append(
                DisplayedClaim(
                    declared=claim,
                    masked=MaskedClaim(actor, person, name),
                    revealed=revealed.get(name),
                )
            )
        notice = next((result.notice for result in revealed.values() if result.notice), "")
        context = {"form": self.get_form(), "claims": claims, "redisclosure_notice": notice}
        return super().get_context_data(**{**context, **kwargs})

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Reveal what the form's purpose permits, after the events are committed."""
        form = self.get_form(request.POST)
        if not form.is_valid():
            return self._render_form(form, status=400)
        purpose: str = form.cleaned_data["purpose"]
        try:
            revealed = self.reveal(purpose)
        except AuditUnavailable:
            return self.render_unavailable(form)
        if all(result.is_refused for result in revealed.values()):
            return self.render_refused(form)
        return self._render_form(form, status=200, revealed=revealed, purpose=purpose)

    def reveal(self, purpose: str) -> Mapping[str, RevealResult]:
        """Return the results of the claims declared for this purpose, or of all on a person's own
        request.

        Claims of a category that the actor may not reveal are not requested. If no claim is left,
        all are requested, so that the refusals are recorded. Raises: AuditUnavailable.
        """
        claims = self.get_claim_declarations()
        person = self.get_person()
        is_own = self._is_own_data()
        actor = Actor.from_request(self.request)

        if is_own:
            hidden = set()
        else:
            hidden = list_names_hidden_of(actor.user, person)

        is_own_request = purpose == PATIENT_REQUEST and is_own
        names = []
        for name, claim in claims.items():
            if is_own_request or purpose == claim.purpose:
                names.append(name)
        names = [name for name in names if name not in hidden]
        consents = {person.pk: suppress_not_found(self.get_consent, missing="")()}
        return reveal_many(actor, [person], names or claims, purpose=purpose, consents=consents)[
            person.pk
        ]

    def render_refused(self, form: PurposeForm) -> HttpResponseBase:
        """Return the page for a purpose that permits nothing; the reason is only in the audit
        log.
        """
        form.add_error(None, _("This information cannot be shown for this purpose."))
        return self._render_form(form, status=403)

    def render_unavailable(self, form: PurposeForm) -> HttpResponseBase:
        form.add_error(None, _("This information cannot be shown at the moment. Try again later."))
        return self._render_form(form, status=503)

    def _render_form(self, form: Form, *, status: int, **context: Any) -> HttpResponseBase:
        return self.render_to_response(self.get_context_data(form=form, **context), status=status)

    def _is_own_data(self) -> bool:
        return self.request.user.pk is not None and self.request.user.pk == self.get_person().pk
