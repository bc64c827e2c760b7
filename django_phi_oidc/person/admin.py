"""The page of a person, and the acts from it: linked from the user's own page, whatever user model and admin it has."""

from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.loader import select_template
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from .. import clock
from ..access.policy import PERMISSION_MISSING, SESSION_MISSING
from ..access.responding import keep_private
from ..audit.admin import trail_unavailable
from ..audit.events import Action
from ..audit.recording import record
from ..audit.request import Actor
from ..errors import AuditUnavailable, PhiOidcError, RevealRefused
from ..listing import in_words
from ..subjects.models import PairwiseSubject
from .acting import ACTS, Asked, PersonAct, Shown
from .gathering import APP, gather, may_view

_PAGES = f"admin/{APP}/person"


def add_persons(site: AdminSite) -> None:
    """Give the site a page for each person, and link the page of the user model to it, where the site has one.

    No model and no template of the host project's is asked for. That the site makes its URLs when all its pages are
    registered is why it is done then.
    """
    others = site.get_urls

    def get_urls() -> list[Any]:
        users = site._registry.get(get_user_model())
        if users is not None and not hasattr(users, "phi_oidc_linked"):
            _link(users)
        view = site.admin_view(_of_site(site))
        return [
            path(f"{APP}/person/<str:quoted>/", view, name="phi_oidc_person"),
            path(f"{APP}/person/<str:quoted>/<str:act>/", view, name="phi_oidc_person_act"),
            *others(),
        ]

    site.get_urls = get_urls  # type: ignore[method-assign]  # of this one site


def _link(users: Any) -> None:
    """Let the change page of users, by whatever template, bear a link for those who may go where it leads."""
    usual = users.render_change_form

    @wraps(usual)
    def render_change_form(request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        response = usual(request, context, *args, **kwargs)
        person = kwargs.get("obj") or context.get("original")
        if person is not None and isinstance(response, TemplateResponse) and _may_come(request.user, person):
            names: Any = response.template_name
            of_users = select_template([names] if isinstance(names, str) else names)
            response.context_data = {
                **(response.context_data or {}),
                "phi_oidc_extended": getattr(of_users, "template", of_users),
                "phi_oidc_person_url": reverse("admin:phi_oidc_person", args=[quote(person.pk)]),
            }
            response.template_name = f"{_PAGES}/user_change_form.html"
        return response

    users.render_change_form = render_change_form
    users.phi_oidc_linked = True


def _of_site(site: AdminSite) -> Any:
    @sensitive_post_parameters()
    @sensitive_variables()
    def person_view(request: HttpRequest, quoted: str, act: str = "") -> HttpResponseBase:
        """Show the page of a person, or ask about an act and do it. Who may not is refused, after the event of that."""
        frame = {**site.each_context(request), "opts": PairwiseSubject._meta}
        keep_private(request)
        try:
            person = _find(request, unquote(quoted), act)
            if not act:
                return _show(request, person, frame)
            return _ask(request, person, _permitted(request, person, act), frame)
        except AuditUnavailable:
            return trail_unavailable(request, site)

    return person_view


def _find(request: HttpRequest, key: str, act: str) -> AbstractBaseUser:
    """Return the person. Whoever may see nothing of anybody is not told who is there. Raises: PermissionDenied."""
    users = get_user_model()
    try:
        found: AbstractBaseUser | None = users._base_manager.get(pk=key)
    except (ObjectDoesNotExist, ValidationError, ValueError, OverflowError):
        found = None
    if not _may_come(request.user, users()):
        raise _refused(request, found, act)
    if found is None:
        raise Http404
    return found


def _may_come(user: Any, person: Any) -> bool:
    return bool(may_view(user, person)) or any(user.has_perm(act.permission) for act in ACTS.values())


def _permitted(request: HttpRequest, person: AbstractBaseUser, name: str) -> PersonAct:
    act = ACTS.get(name)
    if act is None:
        raise Http404
    if not act.is_permitted(request.user, person):
        raise _refused(request, person, name)
    if name == "export" and not Actor.from_request(request).is_vouched_for:
        # As it is with each claim alone.
        raise _refused(request, person, name, SESSION_MISSING)
    return act


def _refused(
    request: HttpRequest, person: AbstractBaseUser | None, act: str, reason: str = PERMISSION_MISSING
) -> PermissionDenied:
    """Return the refusal, whose event is committed, without a key that is nobody's and an act that is none.

    Raises: AuditUnavailable.
    """
    origin, now = Actor.from_request(request).origin, clock.now()
    resource = f"user/{person.pk}" if person else ""
    told: dict[str, Any] = {"reason": reason, "resource": resource}
    told["detail"] = {"page": f"person/{act}" if act in ACTS else "person"}
    record(Action.ACCESS_DENIED, origin=origin, now=now, outcome="failure", **told)
    return PermissionDenied()


def _show(request: HttpRequest, person: AbstractBaseUser, frame: dict[str, Any]) -> HttpResponseBase:
    acts = [act for act in ACTS.values() if act.is_permitted(request.user, person)]
    sections = list(gather(Actor.from_request(request), person, now=clock.now()))
    shown = {section.name for section in sections}
    context = {
        "title": _("Person"),
        "person": person,
        "quoted": quote(person.pk),
        "sections": [(section, [act for act in acts if act.section == section.name]) for section in sections],
        "other_acts": [act for act in acts if act.section not in shown],
    }
    return TemplateResponse(request, f"{_PAGES}/person.html", {**frame, **context})


def _ask(request: HttpRequest, person: AbstractBaseUser, act: PersonAct, frame: dict[str, Any]) -> HttpResponseBase:
    asked = Asked(actor=Actor.from_request(request), person=person, now=clock.now())
    form = act.form(request.POST if request.method == "POST" else None, choices=act.offers(asked))
    context = {**frame, "title": act.title, "act": act, "person": person, "quoted": quote(person.pk), "form": form}
    status = 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            try:
                asked.given.update(form.cleaned_data)
                return _answer(request, act.do(asked), context)
            except AuditUnavailable:
                raise
            except (PhiOidcError, ObjectDoesNotExist) as refusal:
                is_refused = isinstance(refusal, RevealRefused)
                form.add_error(None, _("This can’t be opened for that purpose.") if is_refused else in_words(refusal))
                status = 403 if is_refused else 409
    return TemplateResponse(request, f"{_PAGES}/act.html", context, status=status)


def _answer(request: HttpRequest, came: str | Shown, context: dict[str, Any]) -> HttpResponseBase:
    """Show it in this answer alone: neither an address nor a message has a value."""
    if isinstance(came, str):
        messages.success(request, came)
        return HttpResponseRedirect(reverse("admin:phi_oidc_person", args=[context["quoted"]]))
    if came.file:
        disposition = 'attachment; filename="person.json"'
        headers = {"Content-Disposition": disposition, "Cache-Control": "no-store"}
        return HttpResponse(came.file, content_type="application/json", headers=headers)
    return TemplateResponse(request, f"{_PAGES}/shown.html", {**context, "rows": came.rows})
