"""A page that asks for a purpose, and then shows."""

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
from ..access.policy import PATIENT_REQUEST
from ..audit.request_context import Actor
from ..config.claims import ClaimDeclaration
from ..errors import AuditUnavailable
from .disclosure import RevealResult, reveal_many
from .forms import PurposeForm
from .masking import MaskedClaim


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayedClaim:
    """A claim as the page has it: what is declared of it, the mask, and what came of it once a purpose was stated."""

    declared: ClaimDeclaration
    masked: MaskedClaim
    revealed: RevealResult | None = None


class RevealMixin(TemplateResponseMixin, ContextMixin):
    """A view that shows a person's claims masked, and by POST those that may be seen for the purpose that was chosen.

    Goes in front of TemplateView. Its template gets `claims` (a list of ShownClaim), `form`, and after a look the
    `purpose`; it opens nothing itself. GET never reveals. No purpose is 400, one that nothing may be seen for is 403, a
    trail that can't be written is 503, each with its word on the form. Who may come here, and that the form bears
    Django's CSRF token, is for the project to see to.
    """

    request: HttpRequest
    claim_names: Sequence[str] = ()
    """In the order of the page; empty: all that are declared and kept."""
    form_class: type[PurposeForm] = PurposeForm
    initial_purpose = ""
    """What is chosen before anybody chose; better nothing."""

    def get_person(self) -> AbstractBaseUser:
        """Return whose claims these are: the one who is signed in, unless overridden."""
        return cast(AbstractBaseUser, self.request.user)

    def get_claim_declarations(self) -> Mapping[str, ClaimDeclaration]:
        """Return what is declared of the page's claims, by name."""
        declared = conf.claims()
        names = self.claim_names or [name for name, claim in declared.items() if claim.retention is not None]
        return {name: declared[name] for name in names if name in declared}

    def get_form(self, data: Any = None) -> PurposeForm:
        """Return the form for these claims: one that asks, or with data one that was answered."""
        initial = {"purpose": self.initial_purpose}
        return self.form_class(
            data, claims=self.get_claim_declarations().values(), is_own=self._is_own_data(), initial=initial
        )

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        revealed: Mapping[str, RevealResult] = kwargs.pop("revealed", {})
        actor, person = Actor.from_request(self.request), self.get_person()
        shown = [
            DisplayedClaim(declared=claim, masked=MaskedClaim(actor, person, name), revealed=revealed.get(name))
            for name, claim in self.get_claim_declarations().items()
        ]
        return super().get_context_data(**{"form": self.get_form(), "claims": shown, **kwargs})

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show what may be seen for the purpose in the form, after the events of that."""
        form = self.get_form(request.POST)
        if not form.is_valid():
            return self._render_form(form, status=400)
        purpose: str = form.cleaned_data["purpose"]
        try:
            revealed = self.reveal(purpose)
        except AuditUnavailable:
            return self.render_unavailable(form)
        if all(each.is_refused for each in revealed.values()):
            return self.render_refused(form)
        return self._render_form(form, status=200, revealed=revealed, purpose=purpose)

    def reveal(self, purpose: str) -> Mapping[str, RevealResult]:
        """Return what came of each claim that is held for this purpose; of all on a person's own request.

        Where nothing is held for it, all are asked for all the same: the refusals belong into the trail.
        Raises: AuditUnavailable.
        """
        claims, person = self.get_claim_declarations(), self.get_person()
        is_request = purpose == PATIENT_REQUEST and self._is_own_data()
        fitting = [name for name, claim in claims.items() if is_request or purpose == claim.purpose]
        actor = Actor.from_request(self.request)
        return reveal_many(actor, [person], fitting or claims, purpose=purpose)[person.pk]

    def render_refused(self, form: PurposeForm) -> HttpResponseBase:
        """Return the page for a purpose that nothing may be seen for; it tells no reason, which is in the trail."""
        form.add_error(None, _("This can’t be opened for that purpose."))
        return self._render_form(form, status=403)

    def render_unavailable(self, form: PurposeForm) -> HttpResponseBase:
        """Return the page for when nothing can be recorded."""
        form.add_error(None, _("Nothing can be opened at the moment. Try again later."))
        return self._render_form(form, status=503)

    def _render_form(self, form: Form, *, status: int, **context: Any) -> HttpResponseBase:
        return self.render_to_response(self.get_context_data(form=form, **context), status=status)

    def _is_own_data(self) -> bool:
        return self.request.user.pk is not None and self.request.user.pk == self.get_person().pk
