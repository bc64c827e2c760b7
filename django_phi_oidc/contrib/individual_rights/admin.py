"""The accountings of disclosures that were given, in the admin: the list, and each copy as a
download.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.utils.html import format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from ..._internal.admin_columns import create_time_column
from ...access.no_store import mark_response_private
from ...audit.admin_base import ReadOnlyAdmin, record_request_event, render_trail_unavailable
from ...audit.events import Action
from ...errors import AuditUnavailable, KeyRingError
from ..common.people_admin import PeopleAdmin
from .models import AccountingCopy


@admin.register(AccountingCopy)
class AccountingCopyAdmin(PeopleAdmin, ReadOnlyAdmin):
    uuid_lookups = ("pk",)
    list_display = ("person", "last_given", "first_given", "count", "digest")
    list_display_links = ("last_given",)
    ordering = ("-last_given_at",)
    sortable_by = ()

    last_given = create_time_column("last_given_at", gettext_lazy("Last given (UTC)"))
    first_given = create_time_column("first_given_at", gettext_lazy("First given (UTC)"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccountingCopy]:
        return super().get_queryset(request).defer("lines")

    def list_actors(self, row: AccountingCopy) -> Iterable[str]:
        return (row.account,)

    def list_exact_matches(self, queryset: QuerySet[Any], term: str) -> Iterable[QuerySet[Any]]:
        """Include the key of an account that was deleted."""
        return *super().list_exact_matches(queryset, term), queryset.filter(account=term)

    def filter_by_accounts(self, queryset: QuerySet[Any], accounts: Sequence[Any]) -> QuerySet[Any]:
        return queryset.filter(account__in=[str(account) for account in accounts])

    def describe_row(self, row: AccountingCopy) -> str:
        """Return the person."""
        return self.get_name(row, row.account)

    @admin.display(description=gettext_lazy("Person"))
    def person(self, row: AccountingCopy) -> str:
        return self.show_actor(row, row.account)

    @admin.display(description=gettext_lazy("SHA-256"))
    def digest(self, row: AccountingCopy) -> str:
        """Return the digest in parts between which a narrow column breaks the line."""
        parts = []
        for start in range(0, 64, 16):
            parts.append(row.sha256[start : start + 16])
        return format_html_join(mark_safe("<wbr>"), "{}", ((part,) for part in parts))

    @method_decorator(sensitive_variables())
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Return the lines as a download, after the event of this. Raises: Http404, also if no key
        decrypts them.
        """
        if request.method != "GET" or not self.has_view_permission(request):
            raise PermissionDenied
        mark_response_private(request)
        field: Any = AccountingCopy._meta.get_field("lines")
        try:
            copy = AccountingCopy.objects.get(pk=UUID(object_id))
            detail = {"page": "accounting", "filters": []}
            record_request_event(
                request, Action.AUDIT_VIEWED, resource=f"user/{copy.account}", detail=detail
            )
            lines = field.decrypt(copy)
        except AuditUnavailable:
            return render_trail_unavailable(request, self.admin_site)
        except (AccountingCopy.DoesNotExist, KeyRingError, ValueError):
            raise Http404 from None
        headers = {"Content-Disposition": f'attachment; filename="accounting-{copy.pk}.jsonl"'}
        return HttpResponse(
            lines,
            content_type="application/jsonl",
            headers={**headers, "Cache-Control": "no-store"},
        )
