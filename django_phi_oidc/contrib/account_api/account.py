"""The functions of "Your access" as JSON, so that a single-page portal can build its own page.

They are the use cases of the pages. A refusal is a problem document. Spec: RFC 9457.
"""

import uuid
from dataclasses import asdict
from typing import Any

from django.http import Http404
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException
from rest_framework.parsers import JSONParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ..._internal import clock
from ...access.no_store import add_notice, mark_response_private
from ...access.responses import set_private_headers
from ...access.step_up import create_step_up_url, get_return_path
from ...audit.filters import EventCursorForm
from ...audit.request_context import Actor
from ...audit.search import RowUnreadable
from ...errors import AuditUnavailable
from ..individual_rights.accounting import get_accounting_start
from ..individual_rights.own_account import (
    RECENT_SIGN_IN,
    create_own_accounting,
    end_other_sessions,
    export_own_data,
    get_recipient_name,
    get_represented_name,
    list_held_claims,
    list_own_sessions,
)
from ..rest_framework.authentication import BearerAuthentication
from ..rest_framework.exceptions import service_unavailable
from ..rest_framework.permissions import HasScope, RequireAssurance

SCOPE = "account"
"""The scope that an access token needs. A session of the portal needs none."""
_DISCLOSURES_PER_PAGE = 50


class AccountAPIView(APIView):
    """A view for the user's own account, by a session of the portal or an access token with the
    scope `account`.
    """

    authentication_classes = (BearerAuthentication, SessionAuthentication)
    permission_classes = (HasScope,)
    renderer_classes = (JSONRenderer,)
    parser_classes = (JSONParser,)
    required_scopes = (SCOPE,)
    max_age = RECENT_SIGN_IN.max_age
    recent_sign_in_methods: tuple[str, ...] = ()
    """The methods that need a recent sign-in."""

    def get_permissions(self) -> list[BasePermission]:
        """Return the permissions of the method: the last one is that of a recent sign-in, if it is
        needed.
        """
        is_recent = self.request.method in self.recent_sign_in_methods
        return [*super().get_permissions(), *([RequireAssurance()] if is_recent else [])]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        mark_response_private(request._request)
        super().initial(request, *args, **kwargs)

    def handle_exception(self, exc: Exception) -> Response:
        """Return the problem document of a refusal. Raises: any other exception."""
        if isinstance(exc, AuditUnavailable | RowUnreadable):
            exc = service_unavailable()
        response = super().handle_exception(exc)
        code = "not_found"
        title = "Not found."
        if isinstance(exc, APIException):
            code = str(exc.get_codes())
            title = str(exc.detail)
        response.data = {"title": title, "status": response.status_code, "code": code}
        if code == "insufficient_user_authentication" and (url := self._create_step_up_url()):
            response.data["step_up"] = url
        response.content_type = "application/problem+json"
        return response

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        return set_private_headers(super().finalize_response(request, response, *args, **kwargs))

    @property
    def actor(self) -> Actor:
        return Actor.from_request(self.request)

    def _create_step_up_url(self) -> str:
        """Return the URL that leads to the provider, and back to the page of the script; empty for
        an access token.
        """
        if not (session := self.actor.origin.session):
            return ""
        next_url = get_return_path(self.request._request, is_safe_navigation=False)
        return create_step_up_url(
            RECENT_SIGN_IN, session_id=session, next_url=next_url, now=clock.now()
        )


class SessionsView(AccountAPIView):
    """List the live sessions of the user; DELETE ends all others."""

    recent_sign_in_methods = ("DELETE",)

    def get(self, request: Request) -> Response:
        return Response(
            {"sessions": [asdict(session) for session in list_own_sessions(self.actor)]}
        )

    def delete(self, request: Request) -> Response:
        return Response({"ended": end_other_sessions(self.actor, now=clock.now())})


class OtherSessionView(AccountAPIView):
    """DELETE ends one other session of the user."""

    recent_sign_in_methods = ("DELETE",)

    def delete(self, request: Request, session: uuid.UUID) -> Response:
        if not end_other_sessions(self.actor, session_id=session, now=clock.now()):
            raise Http404
        return Response(status=204)


class DisclosuresView(AccountAPIView):
    """List who looked at the user's record, newest first; `before` and `after` of the query are ids
    of events.
    """

    def get(self, request: Request) -> Response:
        cursor = EventCursorForm(request.query_params)
        if not cursor.is_valid():
            raise Http404
        now = clock.now()
        shows_own = request.query_params.get("all") == "1"
        since = get_accounting_start(now)
        accounting = create_own_accounting(self.actor, since=since, include_own=shows_own, now=now)
        page = accounting.get_page(**cursor.cleaned_data, size=_DISCLOSURES_PER_PAGE)
        begins_at = None
        if page.older_key is None:
            begins_at = accounting.find_available_since()

        disclosures = []
        for row in page.rows:
            disclosures.append(
                {
                    "id": row.id,
                    "occurred_at": row.occurred_at,
                    "action": row.action,
                    "is_own": row.is_own,
                    "resource": row.resource,
                    "claims": row.claims,
                    "actor": "" if row.is_own else get_recipient_name(row.recipient),
                    "on_behalf_of": get_represented_name(row, self.actor),
                    "purpose": row.purpose,
                    "purpose_name": row.purpose_name,
                    "is_emergency": bool(row.emergency),
                }
            )
        cursors = {"newer": page.newer_key, "older": page.older_key}
        return Response(
            {"since": since, "begins_at": begins_at, **cursors, "disclosures": disclosures}
        )


class HeldClaimsView(AccountAPIView):
    """List which claims are stored about the user, without their values."""

    def get(self, request: Request) -> Response:
        claims: Any = list_held_claims(self.actor.user, now=clock.now())  # type: ignore[arg-type]  # has signed in
        return Response(
            {"claims": [{**asdict(claim), "purpose_name": claim.purpose_label} for claim in claims]}
        )


class OwnDataView(AccountAPIView):
    """POST returns the copy of all data about the user."""

    recent_sign_in_methods = ("POST",)

    def post(self, request: Request) -> Response:
        document = export_own_data(self.actor, now=clock.now()).document
        if document["redisclosure_notice"]:
            add_notice(request._request)
        return Response(document)
