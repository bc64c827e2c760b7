"""What our pages in Django's admin share.

Lists that are quick with a million rows, forms that say why not, and refusals that the trail has.
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
    "held_for_legal_reasons": gettext_noop("A legal hold keeps what is held of this person: release it first."),
    "sub_invalid": gettext_noop("sub is not 1 to 255 ASCII characters."),
    "sub_not_pairwise": gettext_noop("sub is an identifier that other clients see too."),
}
"""Of the codes of refusals that somebody of the staff can do something about."""

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    BasePaginator = Paginator[Any]
else:
    ModelAdmin, BasePaginator = admin.ModelAdmin, Paginator


def get_error_message(error: PhiOidcError | ObjectDoesNotExist) -> str:
    """Return what somebody of the staff reads of a refusal, in their language.

    Of a fault that is left to those who run the site it is the code; the log has the rest.
    """
    if isinstance(error, ObjectDoesNotExist):
        return _("What this is about is gone.")
    if error.details:
        return _(error.message) % error.details
    if error.code in _MESSAGES_BY_CODE:
        return _(_MESSAGES_BY_CODE[error.code])
    logger.error("What somebody asked for in the admin can't be done: %s %s", error.code, error)
    return _("This can’t be done: %(code)s. Tell those who run this site.") % {"code": error.code}


class ResourcePermissionDenied(PermissionDenied):
    """Refused for what it is about, and not for what it is: `about`, a `Type/id`, is the event's resource."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource)
        self.resource = resource


class CappedPaginator(BasePaginator):
    """Counts no further than anybody would page."""

    @cached_property
    def count(self) -> int:
        """The number of rows, or MOST_COUNTED."""
        rows: Any = self.object_list
        return int(rows[:MAX_COUNTED_ROWS].count())


class AuditedAdmin(ModelAdmin):
    """Whoever is refused a page or an act leaves `access.denied`, committed before the answer."""

    @property
    def urls(self) -> list[Any]:
        """The URLs of all pages, of Django's own and of those that a model has beside them."""
        return [self._log_denied_access(each) for each in self.get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, or act on what was chosen. Django itself would not say that an act is left to others."""
        if self._list_denied_actions(request):
            raise PermissionDenied
        return super().changelist_view(request, extra_context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a row. Django itself looks at what is asked before it looks at who asks, and adds for `_saveasnew`."""
        if not self.has_view_or_change_permission(request) or "_saveasnew" in request.POST:
            raise PermissionDenied
        return super().change_view(request, object_id, form_url, extra_context)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Ask before a row is deleted, and delete it; only who may delete is told what is wrong with the request."""
        if not self.has_delete_permission(request):
            raise PermissionDenied
        return super().delete_view(request, object_id, extra_context)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Show what Django has logged of a row. Django itself tells everybody whether there is such a row."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return super().history_view(request, object_id, extra_context)

    def _list_denied_actions(self, request: HttpRequest) -> list[str]:
        """Return which acts on its rows the list is asked for that are left to others. A popup has no acts at all."""
        if IS_POPUP_VAR in request.GET:
            return []
        every = {*(self.actions or ()), *(name for name, _ in self.admin_site.actions)}
        permitted = self.get_actions(request)
        return sorted(name for name in {*request.POST.getlist("action")} if name in every and name not in permitted)

    def _log_denied_access(self, pattern: URLPattern) -> URLPattern:
        view = pattern.callback

        @wraps(view)
        def telling(request: HttpRequest, *args: Any, **asked: Any) -> Any:
            try:
                return view(request, *args, **asked)
            except PermissionDenied as refusal:
                # A key that is nobody's is not written.
                row = self.get_object(request, unquote(asked.get("object_id", "")))
                is_list = str(pattern.name).endswith("_changelist")
                about = getattr(refusal, "resource", "")
                try:
                    for act in (is_list and self._list_denied_actions(request)) or [""]:
                        record_access_denied(
                            request, self.opts, *([row.pk] if row else []), operation=act, resource=about
                        )
                except AuditUnavailable:
                    return render_trail_unavailable(request, self.admin_site)
                raise

        pattern.callback = telling
        return pattern


class ReadOnlyAdmin(AuditedAdmin):
    """Rows are looked at; what may be done to them are actions."""

    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class CascadeOnlyAdmin(ReadOnlyAdmin):
    """Rows of a person, which nobody deletes alone, and which are no obstacle to the deletion of the person.

    Django asks of each row that a deletion would take along whether it may be deleted, and this says yes: who may
    delete a person is the person's own page to say.
    """

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is not None

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Refuse: it is no page of these rows."""
        raise PermissionDenied

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a row, without a button that deletes it."""
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "show_delete": False})


class LabelledSplitDateTimeWidget(AdminSplitDateTime):
    """Says which of its two inputs is which to those who do not see it; before Django 6.1 nothing else does."""

    def __init__(self, attrs: Any = None) -> None:
        super().__init__(attrs)
        for each, name in zip(self.widgets, (_("Date"), _("Time")), strict=True):
            each.attrs["aria-label"] = name


class ErrorMessageAdmin(AuditedAdmin):
    """A refusal of what a form asks for is a message above the form, and not an error of the server's."""

    formfield_overrides = {  # noqa: RUF012 -- Django's own form of it
        DateTimeField: {"form_class": SplitDateTimeField, "widget": LabelledSplitDateTimeWidget}
    }

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Do it, or say why not."""
        try:
            return super().add_view(request, form_url, extra_context)
        except (PhiOidcError, ObjectDoesNotExist) as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
            return HttpResponseRedirect(self.get_retry_url(request))

    def get_retry_url(self, request: HttpRequest) -> str:
        """Return where the form is tried again."""
        return request.path
