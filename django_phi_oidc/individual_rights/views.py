"""The page on which people see who looked at their own record. Nobody sees anybody else's."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode

from django.contrib.auth.base_user import AbstractBaseUser
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from django.views.generic import View
from django.views.generic.base import ContextMixin

from .. import conf
from .._internal import clock
from ..access.enforcement import enforce_assurance, render_unavailable, set_no_store
from ..access.no_store import mark_response_private
from ..access.policy import Assurance
from ..audit.filters import EventCursorForm
from ..audit.request_context import Actor
from ..audit.search import RowUnreadable
from ..errors import AuditUnavailable
from .accounting import (
    Disclosure,
    DisclosureAccounting,
    create_accounting,
    find_actor_accounts,
    get_accounting_start,
    get_display_name,
)

logger = logging.getLogger("django_phi_oidc.individual_rights")


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayedDisclosure:
    """A look, and who looked, in words."""

    disclosure: Disclosure
    actor_name: str
    purpose: str
    """HL7's words, in the language of whoever reads them; empty where the look had none."""


class AccountingMixin(ContextMixin, View):
    """Gives a TemplateView what the trail tells of looks at the record of whoever is signed in.

    Its template gets `disclosures` (a list of ShownDisclosure, newest first), `since`, `shows_own`, `newer` and `older`
    (query strings, or empty), and on the last page `begins_at`, where what was before is in archives alone. `?all=1`
    shows the person's own looks, too. Each page is an event before it is shown. It is for a provider's session; nobody
    keeps it; without the trail the answer is 503.
    """

    request: HttpRequest
    page_size = 50

    def get_since(self, now: datetime) -> datetime:
        """Return how far back the page tells: six years, as the rule has it."""
        return get_accounting_start(now)

    def get_actor_name(self, actor: AbstractBaseUser | None) -> str:
        """Return what the person reads of who looked; None: of that account nothing is known any more."""
        return get_display_name(actor) or _("a member of staff")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Return the page, or the answer in its place."""
        mark_response_private(request)
        refused = enforce_assurance(request, Assurance())
        if refused is not None:
            return refused
        try:
            return set_no_store(super().dispatch(request, *args, **kwargs))
        except (AuditUnavailable, RowUnreadable) as fault:
            logger.error("Nobody was told who looked: the trail can't be used.", exc_info=fault)  # noqa: TRY400
            return render_unavailable(request)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return the looks, after the event that they are shown. Raises: Http404; AuditUnavailable, RowUnreadable."""
        beside = EventCursorForm(self.request.GET)
        if not beside.is_valid():
            raise Http404
        shows_own = self.request.GET.get("all") == "1"
        told = self._create_accounting(include_own=shows_own, now=clock.now())
        page = told.get_page(**beside.cleaned_data, size=self.page_size)
        accounts = find_actor_accounts(page.rows)
        shown = {
            "disclosures": [
                DisplayedDisclosure(
                    disclosure=each,
                    actor_name=self._get_actor_label(each, accounts.get(each.actor)),
                    purpose=_(each.purpose_name) if each.purpose else "",
                )
                for each in page.rows
            ],
            "since": told.since,
            "shows_own": shows_own,
            "newer": _encode_query(shows_own, after=page.newer_key),
            "older": _encode_query(shows_own, before=page.older_key),
            "begins_at": told.find_available_since() if page.older_key is None else None,
        }
        return super().get_context_data(**shown, **kwargs)

    def _create_accounting(self, *, include_own: bool, now: datetime) -> DisclosureAccounting:
        # Of whoever is signed in, and of nobody else by any parameter.
        user, named_by = cast(AbstractBaseUser, self.request.user), conf.patient_resources()
        return create_accounting(
            user,
            resources=named_by(user) if named_by else (),
            since=self.get_since(now),
            include_own=include_own,
            origin=Actor.from_request(self.request).origin,
            now=now,
        )

    def _get_actor_label(self, disclosure: Disclosure, actor: AbstractBaseUser | None) -> str:
        return _("you") if disclosure.is_own else self.get_actor_name(actor)


def _encode_query(shows_own: bool, **cursor: object) -> str:
    given: Mapping[str, object] = {name: value for name, value in cursor.items() if value is not None}
    return "?" + urlencode({**given, **({"all": 1} if shows_own else {})}) if given else ""
