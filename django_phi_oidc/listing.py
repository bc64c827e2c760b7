"""What our pages in Django's admin share: lists that are quick with a million rows, and forms that say why not."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from .errors import PhiOidcError

MOST_COUNTED = 10_000

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    CountingPaginator = Paginator[Any]
else:
    ModelAdmin, CountingPaginator = admin.ModelAdmin, Paginator


class CappedPaginator(CountingPaginator):
    """Counts no further than anybody would page."""

    @cached_property
    def count(self) -> int:
        """The number of rows, or MOST_COUNTED."""
        rows: Any = self.object_list
        return int(rows[:MOST_COUNTED].count())


class ReadOnlyAdmin(ModelAdmin):
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


class GoesWithItsPersonAdmin(ReadOnlyAdmin):
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


class SaysWhyNotAdmin(ModelAdmin):
    """A refusal of what a form asks for is a message above the form, and not an error of the server's."""

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Do it, or say why not."""
        try:
            return super().add_view(request, form_url, extra_context)
        except (PhiOidcError, ObjectDoesNotExist) as refusal:
            self.message_user(request, str(refusal), messages.ERROR)
            return HttpResponseRedirect(self.again(request))

    def again(self, request: HttpRequest) -> str:
        """Return where the form is tried again."""
        return request.path
