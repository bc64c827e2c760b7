"""Filters of change lists, without the boilerplate of a `SimpleListFilter` class each."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy

ListChoices = Callable[[], list[tuple[str, str]]]
Condition = Callable[[QuerySet[Any]], QuerySet[Any]]


def create_choice_filter(
    title: Any, lookup: str, list_choices: ListChoices
) -> type[admin.SimpleListFilter]:
    """Return a filter that offers declared values: the distinct values of a large table would need
    a full scan.
    """
    return _create_filter(
        title, lookup, list_choices, lambda rows, value: rows.filter(**{lookup: value}), indexed=()
    )


def create_state_filter(
    title: Any,
    parameter: str,
    states: Mapping[str, tuple[Any, Condition]],
    *,
    default: str = "",
    indexed: Collection[str] = (),
) -> type[admin.SimpleListFilter]:
    """Return a filter by state. states: for each value its label, and the condition on the rows.

    default: the state of a list without the parameter; then `all` is the value for all rows.
    indexed: the states whose first rows an index finds, in the order of the list.
    """

    def apply(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
        if value in states:
            return states[value][1](rows)
        return rows

    labels = [(value, label) for value, (label, _) in states.items()]
    list_filter = _create_filter(title, parameter, lambda: labels, apply, indexed=(*indexed, "all"))

    if default:
        return _add_default(list_filter, default)
    return list_filter


def _add_default(
    list_filter: type[admin.SimpleListFilter], default: str
) -> type[admin.SimpleListFilter]:
    class DefaultListFilter(list_filter):  # type: ignore[misc, valid-type]  # a class from a function
        def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, Any]]:
            return [*super().lookups(request, model_admin), ("all", gettext_lazy("All"))]

        def value(self) -> str:
            return super().value() or default

        def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
            for value, label in self.lookup_choices:
                # None removes the parameter.
                query = changelist.get_query_string(
                    {self.parameter_name: None if value == default else value}
                )
                yield {
                    "selected": self.value() == str(value),
                    "query_string": query,
                    "display": label,
                }

    return DefaultListFilter


def _create_filter(
    filter_title: Any,
    parameter: str,
    list_choices: ListChoices,
    apply: Callable[[QuerySet[Any], str], QuerySet[Any]],
    *,
    indexed: Collection[str],
) -> type[admin.SimpleListFilter]:
    class ListFilter(admin.SimpleListFilter):
        title = filter_title
        parameter_name = parameter

        @property
        def needs_scan(self) -> bool:
            """Whether no index finds the rows of the selected value: a `BoundedChangeList` then
            searches few rows.
            """
            return bool(self.value()) and self.value() not in indexed

        def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
            return list_choices()

        def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
            value = self.value()
            if value:
                return apply(queryset, value)
            return queryset

    return ListFilter
