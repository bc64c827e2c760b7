"""The page on which users see who accessed their own record."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.db import transaction
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import classonlymethod
from django.utils.translation import gettext as _
from django.views.generic import View
from django.views.generic.base import ContextMixin

from ..._internal import clock
from ...access.enforcement import enforce_assurance, render_unavailable, set_no_store
from ...access.no_store import mark_response_private
from ...access.policy import Assurance
from ...audit.filters import EventCursorForm
from ...audit.request_context import Actor
from ...audit.search import RowUnreadable
from ...claims.models import get_claim_label
from ...errors import AuditUnavailable
from .accounting import Disclosure, get_accounting_start
from .own_account import create_own_accounting, get_recipient_name, get_represented_name
from .recipients import Recipient

logger = logging.getLogger("django_phi_oidc.individual_rights")


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayedDisclosure:
    """A disclosure with the texts for display."""

    disclosure: Disclosure
    actor_name: str
    represented_name: str
    """The account on whose behalf the actor acted, or empty."""
    purpose: str
    """HL7's name in the reader's language, or empty."""

    @property
    def claims(self) -> list[str]:
        """The names of the disclosed claims in words."""
        return [get_claim_label(name) for name in self.disclosure.claims]


class AccountingMixin(ContextMixin, View):
    """Add the disclosures of the current user's record to a TemplateView.

    Template context: `disclosures` (a list of DisplayedDisclosure, newest first), `since`,
    `shows_own`, `newer` and `older` (query strings, or empty), and on the last page `begins_at` if
    older events are only in archives. `?all=1` also shows the user's own accesses. Disclosures
    whose accounting a legal hold suspends are left out, and nothing shows that. An event is
    recorded before each page is displayed. Requires an OIDC session; the response is not stored;
    without the audit log it is 503. ATOMIC_REQUESTS does not apply to the view.
    """

    request: HttpRequest
    page_size = 50

    @classonlymethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:  # noqa: N805 -- as in Django's View
        """Return the view, which runs in no transaction of the request: it could roll the copy
        back, not the event.
        """
        return transaction.non_atomic_requests(super().as_view(**initkwargs))

    def get_since(self, now: datetime) -> datetime:
        """Return the start of the period: six years ago, as in the rule."""
        return get_accounting_start(now)

    def get_recipient_name(self, recipient: Recipient) -> str:
        """Return the name for display of an account that had access, as it was at that time.

        Its name is empty for an account without one, for a command on the server, and if it is
        unknown.
        """
        return get_recipient_name(recipient)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        mark_response_private(request)
        refusal = enforce_assurance(request, Assurance())
        if refusal is not None:
            return refusal
        try:
            return set_no_store(super().dispatch(request, *args, **kwargs))
        except (AuditUnavailable, RowUnreadable):
            logger.exception(
                "The accounting of disclosures is not displayed: the audit log is unavailable."
            )
            return render_unavailable(request)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return the disclosures after their event is recorded. Raises: Http404; AuditUnavailable,
        RowUnreadable.
        """
        cursor = EventCursorForm(self.request.GET)
        if not cursor.is_valid():
            raise Http404
        shows_own = self.request.GET.get("all") == "1"
        actor = Actor.from_request(self.request)
        now = clock.now()
        accounting = create_own_accounting(
            actor, since=self.get_since(now), include_own=shows_own, now=now
        )
        page = accounting.get_page(**cursor.cleaned_data, size=self.page_size)
        disclosures = []
        for row in page.rows:
            disclosures.append(self._describe_disclosure(row, actor))
        newer = _encode_query(shows_own, after=page.newer_key)
        older = _encode_query(shows_own, before=page.older_key)
        begins_at = None
        if page.older_key is None:
            begins_at = accounting.find_available_since()
        return super().get_context_data(
            disclosures=disclosures,
            since=accounting.since,
            shows_own=shows_own,
            newer=newer,
            older=older,
            begins_at=begins_at,
            **kwargs,
        )

    def _describe_disclosure(self, disclosure: Disclosure, reader: Actor) -> DisplayedDisclosure:
        if disclosure.is_own:
            actor_name = _("you")
        else:
            actor_name = self.get_recipient_name(disclosure.recipient)

        purpose = ""
        if disclosure.purpose:
            purpose = _(disclosure.purpose_name)

        return DisplayedDisclosure(
            disclosure=disclosure,
            actor_name=actor_name,
            represented_name=get_represented_name(disclosure, reader),
            purpose=purpose,
        )


def _encode_query(shows_own: bool, **cursor: object) -> str:
    parameters: dict[str, object] = {}
    for name, value in cursor.items():
        if value is not None:
            parameters[name] = value
    if not parameters:
        return ""
    if shows_own:
        parameters["all"] = 1
    return "?" + urlencode(parameters)
