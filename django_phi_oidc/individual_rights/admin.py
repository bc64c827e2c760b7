"""The accountings of disclosures that were given, in the admin: the list, and each copy as a download."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from ..access.no_store import mark_response_private
from ..audit.admin import record_request_event, render_trail_unavailable
from ..audit.admin_base import ReadOnlyAdmin
from ..audit.events import Action
from ..errors import AuditUnavailable, KeyRingError
from .models import AccountingCopy


@admin.register(AccountingCopy)
class AccountingCopyAdmin(ReadOnlyAdmin):
    list_display = ("last_given_at", "first_given_at", "account", "count", "sha256")
    ordering = ("-last_given_at",)
    sortable_by = ()
    search_fields = ("account",)
    search_help_text = gettext_lazy("The primary key of an account, in full.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccountingCopy]:
        return super().get_queryset(request).defer("lines")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AccountingCopy], search_term: str
    ) -> tuple[QuerySet[AccountingCopy], bool]:
        term = search_term.strip()
        return (queryset.filter(account=term) if term else queryset), False

    @method_decorator(sensitive_variables())
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Return the lines as a download, after the event of this. Raises: Http404, also if no key decrypts them."""
        if request.method != "GET" or not self.has_view_permission(request):
            raise PermissionDenied
        mark_response_private(request)
        field: Any = AccountingCopy._meta.get_field("lines")
        try:
            copy = AccountingCopy.objects.get(pk=UUID(object_id))
            detail = {"page": "accounting", "filters": []}
            record_request_event(request, Action.AUDIT_VIEWED, resource=f"user/{copy.account}", detail=detail)
            lines = field.decrypt(copy)
        except AuditUnavailable:
            return render_trail_unavailable(request, self.admin_site)
        except (AccountingCopy.DoesNotExist, KeyRingError, ValueError):
            raise Http404 from None
        headers = {"Content-Disposition": f'attachment; filename="accounting-{copy.pk}.jsonl"'}
        return HttpResponse(lines, content_type="application/jsonl", headers={**headers, "Cache-Control": "no-store"})
