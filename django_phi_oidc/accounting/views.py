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

from .. import clock, conf
from ..access.admitting import unavailable, unkept, vouch
from ..access.policy import Assurance
from ..access.responding import keep_private
from ..audit.asking import EventCursor
from ..audit.browsing import RowUnreadable
from ..audit.request import Actor
from ..errors import AuditUnavailable
from .reporting import Accounting, Disclosure, account, accounts_of, name_of, six_years_before

logger = logging.getLogger("django_phi_oidc.accounting")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDisclosure:
    """A look, and who looked, in words."""

    disclosure: Disclosure
    who: str
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
        return six_years_before(now)

    def get_actor_name(self, actor: AbstractBaseUser | None) -> str:
        """Return what the person reads of who looked; None: of that account nothing is known any more."""
        return name_of(actor) or _("a member of staff")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Return the page, or the answer in its place."""
        keep_private(request)
        refused = vouch(request, Assurance())
        if refused is not None:
            return refused
        try:
            return unkept(super().dispatch(request, *args, **kwargs))
        except (AuditUnavailable, RowUnreadable) as fault:
            logger.error("Nobody was told who looked: the trail can't be used.", exc_info=fault)  # noqa: TRY400
            return unavailable(request)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return the looks, after the event that they are shown. Raises: Http404; AuditUnavailable, RowUnreadable."""
        beside = EventCursor(self.request.GET)
        if not beside.is_valid():
            raise Http404
        shows_own = self.request.GET.get("all") == "1"
        told = self._account(include_own=shows_own, now=clock.now())
        page = told.page(**beside.cleaned_data, size=self.page_size)
        accounts = accounts_of(page.rows)
        shown = {
            "disclosures": [
                ShownDisclosure(
                    disclosure=each,
                    who=self._who(each, accounts.get(each.actor)),
                    purpose=_(each.purpose_name) if each.purpose else "",
                )
                for each in page.rows
            ],
            "since": told.since,
            "shows_own": shows_own,
            "newer": _query(shows_own, after=page.newer),
            "older": _query(shows_own, before=page.older),
            "begins_at": told.begins_at() if page.older is None else None,
        }
        return super().get_context_data(**shown, **kwargs)

    def _account(self, *, include_own: bool, now: datetime) -> Accounting:
        # Of whoever is signed in, and of nobody else by any parameter.
        user, named_by = cast(AbstractBaseUser, self.request.user), conf.patient_resources()
        return account(
            user,
            resources=named_by(user) if named_by else (),
            since=self.get_since(now),
            include_own=include_own,
            origin=Actor.from_request(self.request).origin,
            now=now,
        )

    def _who(self, disclosure: Disclosure, actor: AbstractBaseUser | None) -> str:
        return _("you") if disclosure.is_own else self.get_actor_name(actor)


def _query(shows_own: bool, **beside: object) -> str:
    given: Mapping[str, object] = {name: value for name, value in beside.items() if value is not None}
    return "?" + urlencode({**given, **({"all": 1} if shows_own else {})}) if given else ""
