"""Change lists of tables with millions of rows: a page counts and searches a limited number of
rows.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.utils.formats import number_format
from django.utils.translation import gettext as _

MAX_ROWS = 5_000
"""A list shows at most so many rows, and a filter without an index searches as many, in the order
of the list.
"""

if TYPE_CHECKING:
    BasePaginator = Paginator[Any]
else:
    BasePaginator = Paginator


class CappedPaginator(BasePaginator):
    """Counts at most MAX_ROWS rows, in the first order of the list only, so that its index may be
    enough.
    """

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        order = rows.query.order_by[:1]
        names = []
        for name in order:
            if isinstance(name, str):
                names.append(name.removeprefix("-"))
        return int(rows.order_by(*order).values(*(names or ["pk"]))[:MAX_ROWS].count())


class BoundedChangeList(ChangeList):
    """Searches only the first rows of the list for a filter without an index, and says so.

    Otherwise a filter that matches few rows would read the whole table. A search needs no limit: it
    finds people by index, and few rows belong to them.
    """

    is_limit_stated = False

    def get_ordering_field(self, field_name: Any) -> Any:
        """Return the field of a sortable column. Django accepts the others in a URL, although they
        have no index.
        """
        if field_name in (self.sortable_by or ()):
            return super().get_ordering_field(field_name)
        return None

    def get_queryset(self, request: Any, exclude_parameters: Any = None) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        if self.query or not any(map(_needs_scan, self.filter_specs)):
            return rows
        indexed: Any = self.root_queryset
        for list_filter in self.filter_specs:
            if not _needs_scan(list_filter):
                indexed = list_filter.queryset(request, indexed)
        order = str(rows.query.order_by[0])
        name = order.removeprefix("-")
        is_descending = order.startswith("-")
        last_and_next = list(
            indexed.order_by(order).values_list(name, flat=True)[MAX_ROWS - 1 : MAX_ROWS + 1]
        )
        if len(last_and_next) < 2 or last_and_next[0] is None:
            return rows
        if request.method == "GET":
            text = _(
                "Only the first %(most)s rows were searched. "
                "Search for a person to find the others."
            )
            self.model_admin.message_user(
                request, text % {"most": number_format(MAX_ROWS)}, messages.INFO
            )
        self.is_limit_stated = True
        is_searched = Q(**{f"{name}__{'gte' if is_descending else 'lte'}": last_and_next[0]})
        # An action may concern a row that the page showed, although newer ones have displaced it
        # since.
        return rows.filter(is_searched | Q(pk__in=request.POST.getlist(ACTION_CHECKBOX_NAME)))

    def get_results(self, request: Any) -> None:
        super().get_results(request)
        if self.result_count == MAX_ROWS and request.method == "GET" and not self.is_limit_stated:
            text = _(
                "The list ends after the first %(most)s rows. Filter it, or "
                "search for a person, to find the others."
            )
            self.model_admin.message_user(
                request, text % {"most": number_format(MAX_ROWS)}, messages.INFO
            )
        if not self.result_count:
            # Otherwise the same search runs a second time.
            self.result_list = self.result_list.none()


def _needs_scan(list_filter: Any) -> bool:
    return getattr(list_filter, "needs_scan", False)
