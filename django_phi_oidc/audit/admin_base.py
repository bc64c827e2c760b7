"""Base classes of the package's admin pages.

They have fast lists with a million rows, forms that show errors as messages, and audit events for
refusals. The pages of the audit log (`TrailAdminMixin`) are read-only, and each view is an event
that is committed before the response.
"""

import logging
import uuid
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, NoReturn

from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_permission_codename
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db.models import DateTimeField
from django.forms import SplitDateTimeField
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from .._internal import clock
from .._internal.admin_theme import ThemedModelAdmin, ThemedSplitDateTime
from ..errors import AuditUnavailable, PhiOidcError
from .bounded_lists import CappedPaginator
from .events import OUTCOMES, Action, EventOutcome
from .recorder import record
from .refusals import RecordedRefusal
from .request_context import Actor, get_request_id
from .storage import translate_database_errors

logger = logging.getLogger("django_phi_oidc.admin")
TrailView = Callable[..., HttpResponseBase]
_ADD_PAGES = ("add", "import", "template", "codes")
"""Pages that add rows, by the end of their URL names: the form, and those of an import."""
_MESSAGES_BY_CODE = {
    "held_for_legal_reasons": gettext_noop(
        "A legal hold protects the data of this person. Release it first."
    ),
    "sub_invalid": gettext_noop("The subject (sub) must have 1 to 255 ASCII characters."),
    "sub_not_pairwise": gettext_noop(
        "This subject (sub) is the same for all clients of the provider. Enter the pairwise one."
    ),
}
"""Messages of refusals that staff can resolve, by code."""


def get_error_message(error: PhiOidcError | ObjectDoesNotExist) -> str:
    """Return the translated message of a refusal for staff.

    For an error that only operators can resolve it has only the code; the details are in the
    application log.
    """
    if isinstance(error, ObjectDoesNotExist):
        return _("This record does not exist any more.")
    if error.details:
        return _(error.message) % error.details
    if error.code in _MESSAGES_BY_CODE:
        return _(_MESSAGES_BY_CODE[error.code])
    logger.error("A request in the admin failed: %s %s", error.code, error)
    return _("This can’t be done: %(code)s. Ask the operators of this site.") % {"code": error.code}


class ResourcePermissionDenied(PermissionDenied):
    """Refused because of the object, not the page. `resource`, a `Type/id`, is the resource of the
    event.
    """

    def __init__(self, resource: str) -> None:
        super().__init__(resource)
        self.resource = resource


class NamedRow:
    """A row for the templates, with the text of its heading and breadcrumb instead of its id."""

    def __init__(self, row: Any, text: str) -> None:
        self._row = row
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


class AuditedAdmin(ThemedModelAdmin):
    """Records `access.denied` for refused pages and actions, committed before the response.

    The title of a page is the name of the model. Django's “Select %s to view” and “View %s” do not
    inflect it.
    """

    operation_permissions: tuple[tuple[str, str], ...] = ()
    """Operations with the codename of their permission, if it is not Django's: the page of a
    refusal names it.
    """

    class Media:
        css = {"all": ("django_phi_oidc/lists.css",)}  # noqa: RUF012 -- the type that Django expects

    @property
    def urls(self) -> list[Any]:
        """The URLs of all pages, Django's and additional ones."""
        return [self._log_denied_access(pattern) for pattern in self.get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, or run an action. Django would not refuse an action without permission,
        but ignore it.
        """
        if self._list_denied_actions(request):
            raise PermissionDenied
        title = {"title": capfirst(self.opts.verbose_name_plural)}
        return super().changelist_view(request, {**title, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a row. Django validates the request before it checks permissions, and adds a row for
        `_saveasnew`.
        """
        if not self.has_view_or_change_permission(request) or "_saveasnew" in request.POST:
            raise PermissionDenied
        title = {"title": capfirst(self.opts.verbose_name)}
        return super().change_view(request, object_id, form_url, {**title, **(extra_context or {})})

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Begin the title with a capital letter. In some languages it begins with the name of the
        model.
        """
        context["title"] = capfirst(context["title"])
        return super().render_change_form(request, context, *args, **kwargs)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        """Confirm and delete a row. The permission check comes first, so that others do not learn
        what is wrong.
        """
        if not self.has_delete_permission(request):
            raise PermissionDenied
        return super().delete_view(request, object_id, extra_context)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        """Show Django's history of a row. Without this check Django discloses whether the row
        exists.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = dict(extra_context or {})
        if (row := self.get_object(request, unquote(object_id))) is not None:
            context["title"] = self.name_row(request, row)
            context["object"] = NamedRow(row, context["title"])
        return super().history_view(request, object_id, context)

    def name_row(self, request: HttpRequest, row: Any) -> str:
        """Return the row in words, for a heading."""
        return str(capfirst(self.opts.verbose_name))

    def _list_denied_actions(self, request: HttpRequest) -> list[str]:
        """Return the requested list actions that exist but are not permitted. Popups have no
        actions.
        """
        if IS_POPUP_VAR in request.GET:
            return []
        existing = {*(self.actions or ()), *(name for name, _ in self.admin_site.actions)}
        return sorted(
            {*request.POST.getlist("action")} & existing - self.get_actions(request).keys()
        )

    def _find_missing_permission(self, request: HttpRequest, page: str, action: str) -> str:
        """Return the first permission for the page or action that the user lacks; "" if none would
        permit it.
        """
        operations = ["view"]
        if action:
            of_site = [function for name, function in self.admin_site.actions if name == action]
            if of_site:
                function = of_site[0]
            else:
                function = getattr(self, action)

            operations = list(getattr(function, "allowed_permissions", []))
        elif page == "delete":
            operations = ["delete"]
        elif page in _ADD_PAGES:
            operations = ["add"]
        elif request.method == "POST":
            operations.append("change")
        codenames = {name: get_permission_codename(name, self.opts) for name in operations}
        for name, codename in self.operation_permissions:
            if name in codenames:
                codenames[name] = codename
        existing = set()
        for name in self.opts.default_permissions:
            existing.add(get_permission_codename(name, self.opts))
        existing |= {codename for codename, _ in self.opts.permissions}
        permissions = []
        for name in codenames.values():
            if name in existing:
                permissions.append(f"{self.opts.app_label}.{name}")
        return next((name for name in permissions if not request.user.has_perm(name)), "")

    def _log_denied_access(self, pattern: URLPattern) -> URLPattern:
        view = pattern.callback

        @wraps(view)
        def audited_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return view(request, *args, **kwargs)
            except RecordedRefusal:
                # Of ADMIN_ASSURANCE, for example.
                raise
            except PermissionDenied as refusal:
                # Keys without a row come from the URL, and are not written to the event.
                row = self.get_object(request, unquote(kwargs.get("object_id", "")))
                if row:
                    row_keys = [row.pk]
                else:
                    row_keys = []

                resource = getattr(refusal, "resource", "")
                page = str(pattern.name).rpartition("_")[2]
                actions = (self._list_denied_actions(request) if page == "changelist" else []) or [
                    ""
                ]
                try:
                    event_ids = []
                    for action in actions:
                        event_ids.append(
                            record_access_denied(
                                request, self.opts, *row_keys, operation=action, resource=resource
                            )
                        )
                except AuditUnavailable:
                    return render_trail_unavailable(request, self.admin_site)
                permission = self._find_missing_permission(request, page, actions[0])
                raise RecordedRefusal(
                    reference=str(event_ids[0]), permission=permission
                ) from refusal

        pattern.callback = audited_view
        return pattern


class ReadOnlyAdmin(AuditedAdmin):
    """Rows can be viewed; changes are only possible by actions."""

    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_delete_permission = has_change_permission


class CascadeOnlyAdmin(ReadOnlyAdmin):
    """Rows that are only deleted together with their person.

    Django checks the delete permission of each row that a deletion cascades to. It is granted here,
    because the page of the person decides who may delete the person.
    """

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is not None

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        raise PermissionDenied

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a row without a delete button."""
        return super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "show_delete": False}
        )


class LabelledSplitDateTimeWidget(ThemedSplitDateTime):
    """Labels its two inputs for screen readers, which Django does not before 6.1."""

    def __init__(self, attrs: Any = None) -> None:
        super().__init__(attrs)
        for widget, name in zip(self.widgets, (_("Date"), _("Time")), strict=True):
            widget.attrs["aria-label"] = name


class ErrorMessageAdmin(AuditedAdmin):
    """Shows refusals of a form as a message above the form, and not as a server error."""

    formfield_overrides = {  # noqa: RUF012 -- the type that Django expects
        DateTimeField: {"form_class": SplitDateTimeField, "widget": LabelledSplitDateTimeWidget}
    }

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Name the time zone of times: the pages show times in UTC."""
        field: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and isinstance(db_field, DateTimeField):
            zone = _("Time zone: %(zone)s.") % {"zone": timezone.get_current_timezone_name()}
            field.help_text = f"{field.help_text} {zone}".strip()
        return field

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().add_view(request, form_url, extra_context)
        except (PhiOidcError, ObjectDoesNotExist) as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
            return HttpResponseRedirect(self.get_retry_url(request))

    def get_retry_url(self, request: HttpRequest) -> str:
        return request.path


def require_trail_permission(
    view: TrailView,
    *,
    methods: Collection[str],
    has_permission: Callable[[Any, HttpRequest], bool],
    permission: str = "",
) -> TrailView:
    """Check a permission before the view. Refusals are events too; without the audit log nothing is
    permitted.

    permission: the one that a refusal names; "": that to view the model.
    """

    @wraps(view)
    def guarded_view(self: Any, request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        try:
            if not has_permission(self, request):
                self.deny(request, *kwargs.values(), permission=permission)
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            return view(self, request, **kwargs)
        except AuditUnavailable:
            return render_trail_unavailable(request, self.admin_site)

    return guarded_view


def require_view_permission(view: TrailView) -> TrailView:
    """Check the view permission before a view for GET and HEAD."""
    return require_trail_permission(
        view,
        methods=("GET", "HEAD"),
        has_permission=lambda page, request: page.has_view_permission(request),
    )


class TrailAdminMixin:
    """What the audit pages use of Django's admin: layout and sign-in, but no way to change
    anything.
    """

    opts: Any
    model: Any
    admin_site: admin.AdminSite

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def get_view_permission(self) -> str:
        """Return the permission that the pages require."""
        return f"{self.opts.app_label}.view_{self.opts.model_name}"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(self.get_view_permission()))

    def deny(self, request: HttpRequest, *row_keys: Any, permission: str = "") -> NoReturn:
        """Refuse the request, after its event is committed. Raises: RecordedRefusal,
        AuditUnavailable.
        """
        # Keys without a row come from the URL, and are not written to the event. PostgreSQL refuses
        # a NUL.
        keys = []
        for key in row_keys:
            if "\0" not in str(key):
                keys.append(key)
        with translate_database_errors():
            rows = []
            for key in keys:
                if self.model._base_manager.filter(pk=key).exists():
                    rows.append(key)
        event_id = record_access_denied(request, self.opts, *rows)
        required = []
        for name in (self.get_view_permission(), permission):
            if name:
                required.append(name)
        missing = next((name for name in required if not request.user.has_perm(name)), "")
        raise RecordedRefusal(reference=str(event_id), permission=missing)

    def build_urls(self, views: Mapping[str, tuple[str, TrailView]]) -> list[Any]:
        """Return the URLs of these views only: the admin's own views would read without an
        event.
        """
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        wrap = self.admin_site.admin_view
        urls = []
        for name, (route, view) in views.items():
            urls.append(path(route, wrap(view), name=f"{prefix}_{name}"))
        return urls

    def render_page(
        self, request: HttpRequest, template_name: str, **context: Any
    ) -> HttpResponseBase:
        """Render an admin page. Its data must be loaded already: templates make no queries."""
        frame = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        return TemplateResponse(
            request,
            f"admin/{self.opts.app_label}/{self.opts.model_name}/{template_name}.html",
            frame,
        )


def record_request_event(
    request: HttpRequest,
    action: Action,
    *,
    outcome: EventOutcome = OUTCOMES[0],
    **event_fields: Any,
) -> uuid.UUID:
    """Commit an event with the request's user as its actor, and return its id. Raises:
    AuditUnavailable.
    """
    return record(
        action,
        origin=Actor.from_request(request).origin,
        now=clock.now(),
        outcome=outcome,
        **event_fields,
    )


def record_access_denied(
    request: HttpRequest, opts: Any, *row_keys: Any, operation: str = "", resource: str = ""
) -> uuid.UUID:
    """Commit that a page of a model, or an operation, was refused, and return the event's id.
    Raises: AuditUnavailable.

    row_keys: the row concerned, if any. operation: by default the page. resource: replaces the
    model and row.
    """
    page = operation or str(getattr(request.resolver_match, "url_name", "")).rpartition("_")[2]
    resource = resource or "/".join([opts.object_name, *map(str, row_keys)])
    detail = {"page": f"{opts.model_name}/{page}"}
    return record_request_event(
        request,
        Action.ACCESS_DENIED,
        outcome="failure",
        reason="permission_missing",
        resource=resource,
        detail=detail,
    )


def render_trail_unavailable(request: HttpRequest, site: admin.AdminSite) -> HttpResponse:
    """Return the page, with status 503, for requests whose event cannot be written."""
    reference = get_request_id(request)
    logger.error(
        "A page of the admin was not shown: the audit log is unavailable. reference=%s", reference
    )
    context = {
        **site.each_context(request),
        "title": _("The audit log is not available"),
        "reference": reference,
        "retry_url": request.get_full_path() if request.method == "GET" else "",
        "home_url": reverse("admin:index", current_app=site.name)
        if site.has_permission(request)
        else "",
    }
    response = TemplateResponse(
        request, "admin/django_phi_oidc/trail_unavailable.html", context, status=503
    )
    response["Retry-After"] = "60"
    return response
