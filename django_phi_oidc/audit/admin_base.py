"""Base classes of the package's admin pages.

They have fast lists with a million rows, forms that show errors as messages, and audit events for refusals.
"""

import logging
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.core.paginator import Paginator
from django.db.models import DateTimeField
from django.forms import SplitDateTimeField
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from ..errors import AuditUnavailable, PhiOidcError
from .admin import record_access_denied, render_trail_unavailable

logger = logging.getLogger("django_phi_oidc.admin")
MAX_COUNTED_ROWS = 10_000
_MESSAGES_BY_CODE = {
    "held_for_legal_reasons": gettext_noop("A legal hold keeps what is stored about this person: release it first."),
    "sub_invalid": gettext_noop("sub is not 1 to 255 ASCII characters."),
    "sub_not_pairwise": gettext_noop("sub is an identifier that other clients see too."),
}
"""Messages of refusals that staff can resolve, by code."""

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    BasePaginator = Paginator[Any]
else:
    ModelAdmin, BasePaginator = admin.ModelAdmin, Paginator


def get_error_message(error: PhiOidcError | ObjectDoesNotExist) -> str:
    """Return the translated message of a refusal for staff.

    For an error that only operators can resolve it has only the code; the details are in the application log.
    """
    if isinstance(error, ObjectDoesNotExist):
        return _("The object does not exist any more.")
    if error.details:
        return _(error.message) % error.details
    if error.code in _MESSAGES_BY_CODE:
        return _(_MESSAGES_BY_CODE[error.code])
    logger.error("A request in the admin failed: %s %s", error.code, error)
    return _("This can’t be done: %(code)s. Ask the operators of this site.") % {"code": error.code}


class ResourcePermissionDenied(PermissionDenied):
    """Refused because of the object, not the page. `resource`, a `Type/id`, is the resource of the event."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource)
        self.resource = resource


class CappedPaginator(BasePaginator):
    """Counts at most MAX_COUNTED_ROWS rows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows[:MAX_COUNTED_ROWS].count())


class AuditedAdmin(ModelAdmin):
    """Records `access.denied` for refused pages and actions, committed before the response."""

    @property
    def urls(self) -> list[Any]:
        """The URLs of all pages, Django's and additional ones."""
        return [self._log_denied_access(pattern) for pattern in self.get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, or run an action. Django would not refuse an action without permission, but ignore it."""
        if self._list_denied_actions(request):
            raise PermissionDenied
        return super().changelist_view(request, extra_context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a row. Django validates the request before it checks permissions, and adds a row for `_saveasnew`."""
        if not self.has_view_or_change_permission(request) or "_saveasnew" in request.POST:
            raise PermissionDenied
        return super().change_view(request, object_id, form_url, extra_context)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Confirm and delete a row. The permission check comes first, so that others do not learn what is wrong."""
        if not self.has_delete_permission(request):
            raise PermissionDenied
        return super().delete_view(request, object_id, extra_context)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Show Django's history of a row. Without this check Django discloses whether the row exists."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return super().history_view(request, object_id, extra_context)

    def _list_denied_actions(self, request: HttpRequest) -> list[str]:
        """Return the requested list actions that exist but are not permitted. Popups have no actions."""
        if IS_POPUP_VAR in request.GET:
            return []
        existing = {*(self.actions or ()), *(name for name, _ in self.admin_site.actions)}
        return sorted({*request.POST.getlist("action")} & existing - self.get_actions(request).keys())

    def _log_denied_access(self, pattern: URLPattern) -> URLPattern:
        view = pattern.callback

        @wraps(view)
        def audited_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return view(request, *args, **kwargs)
            except PermissionDenied as refusal:
                # Keys without a row come from the URL, and are not written to the event.
                row = self.get_object(request, unquote(kwargs.get("object_id", "")))
                row_keys = [row.pk] if row else []
                resource = getattr(refusal, "resource", "")
                is_list = str(pattern.name).endswith("_changelist")
                try:
                    for action in (is_list and self._list_denied_actions(request)) or [""]:
                        record_access_denied(request, self.opts, *row_keys, operation=action, resource=resource)
                except AuditUnavailable:
                    return render_trail_unavailable(request, self.admin_site)
                raise

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

    Django checks the delete permission of each row that a deletion cascades to. It is granted here, because the page of
    the person decides who may delete the person.
    """

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is not None

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        raise PermissionDenied

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a row without a delete button."""
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "show_delete": False})


class LabelledSplitDateTimeWidget(AdminSplitDateTime):
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
