"""The page of a person and its actions, linked from the change page of any user model and admin."""

import uuid
from collections.abc import Iterable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.loader import select_template
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from ..._internal import clock
from ...access.no_store import mark_response_private
from ...access.policy import PERMISSION_MISSING, SESSION_MISSING
from ...audit.admin_base import get_error_message, render_trail_unavailable
from ...audit.events import Action
from ...audit.recorder import record
from ...audit.refusals import RecordedRefusal
from ...audit.request_context import Actor
from ...errors import AuditUnavailable, PhiOidcError, RevealRefused
from ...subjects.models import PairwiseSubject
from ...subjects.people import get_person
from ...subjects.person_label import get_label
from ...subjects.person_search import AccountMatches, find_accounts
from ..common.person_pages import (
    MAX_ROWS,
    ActionRequest,
    ActionResult,
    PersonAction,
    person_actions,
)
from .person_actions import get_person_actions
from .person_lookup import find_people_by_id
from .person_sections import ShownSection, list_viewable_sections, show_sections

_TEMPLATE_DIRECTORY = "admin/phi_oidc_officer_admin/person"


def install_person_pages(site: AdminSite) -> None:
    """Add a page for each person to the site, linked from the change page of the user model if the
    site has one.

    The host project needs no change to a model or template. The link is added when the site builds
    its URLs, because all admins are registered by then.
    """
    get_other_urls = site.get_urls

    def get_urls() -> list[Any]:
        users = site._registry.get(get_user_model())
        if users is not None and not hasattr(users, "phi_oidc_linked"):
            _add_person_link(users)
        view = site.admin_view(_create_person_view(site))
        search_view = site.admin_view(_create_search_view(site))
        return [
            path("django_phi_oidc/person/", search_view, name="phi_oidc_person_search"),
            path("django_phi_oidc/person/<str:quoted>/", view, name="phi_oidc_person"),
            path(
                "django_phi_oidc/person/<str:quoted>/<str:act>/", view, name="phi_oidc_person_act"
            ),
            *get_other_urls(),
        ]

    site.get_urls = get_urls  # type: ignore[method-assign]  # only on this site


def _add_person_link(user_admin: Any) -> None:
    """Add a link to the change page of users, with any template, for those who may open the person
    page.
    """
    original = user_admin.render_change_form

    @wraps(original)
    def render_change_form(
        request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        response = original(request, context, *args, **kwargs)
        person = kwargs.get("obj") or context.get("original")
        if (
            person is not None
            and isinstance(response, TemplateResponse)
            and _can_open_page(request.user, person)
        ):
            names: Any = response.template_name
            template = select_template([names] if isinstance(names, str) else names)
            response.context_data = {
                **(response.context_data or {}),
                "phi_oidc_extended": getattr(template, "template", template),
                "phi_oidc_person_url": reverse("admin:phi_oidc_person", args=[quote(person.pk)]),
            }
            response.template_name = f"{_TEMPLATE_DIRECTORY}/user_change_form.html"
        return response

    user_admin.render_change_form = render_change_form
    user_admin.phi_oidc_linked = True


def _create_person_view(site: AdminSite) -> Any:
    @sensitive_post_parameters()
    @sensitive_variables()
    def person_view(request: HttpRequest, quoted: str, act: str = "") -> HttpResponseBase:
        """Show the page of a person, or confirm and run an action. A refusal is recorded."""
        base_context = {**site.each_context(request), "page_opts": PairwiseSubject._meta}
        mark_response_private(request)
        try:
            person = _get_person(request, unquote(quoted), act)
            if not act:
                return _render_person_page(request, person, base_context)
            return _process_action(
                request, person, _get_permitted_action(request, person, act), base_context
            )
        except AuditUnavailable:
            return render_trail_unavailable(request, site)

    return person_view


def _create_search_view(site: AdminSite) -> Any:
    def search_view(request: HttpRequest) -> HttpResponseBase:
        """Find a person by a name or an id: redirect to the person's page, or list the people that
        match.

        A list shows names only, so it is not recorded; the page of the person and a view of an
        event are.
        """
        mark_response_private(request)
        term = request.GET.get("q", "").strip()
        try:
            if not can_find_people(request.user):
                raise _record_denial(request, None, "")
            if term:
                matches = _find_people(request, site, term)
            else:
                matches = AccountMatches()
        except AuditUnavailable:
            return render_trail_unavailable(request, site)
        if matches.is_single:
            return HttpResponseRedirect(get_person(matches.accounts[0]).url)
        people = []
        for account in matches.accounts:
            people.append((get_person(account), account.get_username()))
        context = {
            **site.each_context(request),
            "page_opts": PairwiseSubject._meta,
            "title": _("Find a person"),
            "term": term,
            "people": people,
            "has_more": matches.has_more,
        }
        return TemplateResponse(request, f"{_TEMPLATE_DIRECTORY}/person_search.html", context)

    return search_view


def can_find_people(user: Any) -> bool:
    """Return whether user may open the page of some person."""
    return _can_open_page(user, get_user_model()())


def _find_people(request: HttpRequest, site: AdminSite, term: str) -> AccountMatches:
    try:
        matches = find_people_by_id(request, uuid.UUID(term))
    except ValueError:
        return find_accounts(request, site, term)
    if matches.accounts:
        return matches
    return find_accounts(request, site, term)


def _get_person(request: HttpRequest, pk: str, action_name: str) -> AbstractBaseUser:
    """Return the person. Without any permission, the response does not show who exists. Raises:
    RecordedRefusal.
    """
    users = get_user_model()
    try:
        person: AbstractBaseUser | None = users._base_manager.get(pk=pk)
    except (ObjectDoesNotExist, ValidationError, ValueError, OverflowError):
        person = None
    if not _can_open_page(request.user, person or users()):
        permission = "django_phi_oidc.view_pairwisesubject"
        raise _record_denial(request, person, action_name, permission=permission)
    if person is None:
        raise Http404
    return person


def _can_open_page(user: Any, person: Any) -> bool:
    if list_viewable_sections(user):
        return True
    return any(action.has_permission(user, person) for action in person_actions)


def _get_permitted_action(
    request: HttpRequest, person: AbstractBaseUser, action_name: str
) -> PersonAction:
    action = get_person_actions().get(action_name)
    if action is None:
        raise Http404
    if not action.is_permitted(request.user, person):
        raise _record_denial(request, person, action_name, permission=action.permission)
    if (
        action.needs_provider_session
        and not Actor.from_request(request).is_authenticated_by_provider
    ):
        raise _record_denial(request, person, action_name, SESSION_MISSING)
    return action


def _record_denial(
    request: HttpRequest,
    person: AbstractBaseUser | None,
    action_name: str,
    reason: str = PERMISSION_MISSING,
    *,
    permission: str = "",
) -> RecordedRefusal:
    """Return the refusal, after its event, which has no unknown key or action of the URL. Raises:
    AuditUnavailable.

    permission: the one that the page names.
    """
    if action_name in get_person_actions():
        page = f"person/{action_name}"
    else:
        page = "person"

    event_id = record(
        Action.ACCESS_DENIED,
        origin=Actor.from_request(request).origin,
        now=clock.now(),
        outcome="failure",
        reason=reason,
        resource=f"user/{person.pk}" if person else "",
        detail={"page": page},
    )
    return RecordedRefusal(reference=str(event_id), permission=permission, reason=reason)


def _render_person_page(
    request: HttpRequest, person: AbstractBaseUser, base: dict[str, Any]
) -> HttpResponseBase:
    sections = list(show_sections(Actor.from_request(request), person, now=clock.now()))
    unavailable = set[str]()
    for shown in sections:
        unavailable |= shown.content.unavailable_actions
    actions = []
    for action in get_person_actions().values():
        if action.name not in unavailable and action.is_permitted(request.user, person):
            actions.append(action)
    section_names = {shown.name for shown in sections}

    last_login = None
    if "roles" in section_names:
        last_login = getattr(person, "last_login", None)

    sections_with_actions = []
    for shown in sections:
        own_actions = [action for action in actions if action.section == shown.name]
        sections_with_actions.append((shown, own_actions))

    context = {
        "title": get_label(person),
        "person": person,
        "quoted": quote(person.pk),
        "last_login": last_login,
        "live_sessions": _find_live_count(sections),
        "max_rows": MAX_ROWS,
        "sections": sections_with_actions,
        "other_acts": [action for action in actions if action.section not in section_names],
    }
    return TemplateResponse(request, f"{_TEMPLATE_DIRECTORY}/person.html", {**base, **context})


def _find_live_count(sections: Iterable[ShownSection]) -> int | None:
    """Return the number of live sessions; None without the section that shows them."""
    for shown in sections:
        if shown.name == "sessions":
            return shown.content.live_count
    return None


def _process_action(
    request: HttpRequest,
    person: AbstractBaseUser,
    action: PersonAction,
    base_context: dict[str, Any],
) -> HttpResponseBase:
    action_request = ActionRequest(
        actor=Actor.from_request(request), person=person, now=clock.now()
    )

    data = None
    if request.method == "POST":
        data = request.POST

    form = action.form_class(data, choices=action.choices(action_request))
    fields = {
        **{"title": action.title, "act": action, "form": form},
        **{"person": person, "label": get_label(person), "quoted": quote(person.pk)},
    }
    context = {**base_context, **fields}

    if request.method == "POST":
        status = 400
    else:
        status = 200

    if form.is_valid():
        try:
            action_request.form_data.update(form.cleaned_data)
            return _render_result(request, action.run(action_request), context)
        except AuditUnavailable:
            raise
        except RevealRefused:
            form.add_error(
                None,
                _(
                    "Nothing was shown: you do not have the permission for "
                    "this purpose, or the consent is missing."
                ),
            )
            status = 403
        except (PhiOidcError, ObjectDoesNotExist) as refusal:
            form.add_error(None, get_error_message(refusal))
            status = 409
    return TemplateResponse(
        request, f"{_TEMPLATE_DIRECTORY}/person_action.html", context, status=status
    )


def _render_result(
    request: HttpRequest, result: str | ActionResult, context: dict[str, Any]
) -> HttpResponseBase:
    """Show the result in this response only: neither a URL nor a message contains a value."""
    if isinstance(result, str):
        messages.success(request, result)
        return HttpResponseRedirect(reverse("admin:phi_oidc_person", args=[context["quoted"]]))
    if result.document:
        disposition = 'attachment; filename="person.json"'
        headers = {"Content-Disposition": disposition, "Cache-Control": "no-store"}
        return HttpResponse(result.document, content_type="application/json", headers=headers)
    return TemplateResponse(
        request, f"{_TEMPLATE_DIRECTORY}/person_result.html", {**context, "result": result}
    )
