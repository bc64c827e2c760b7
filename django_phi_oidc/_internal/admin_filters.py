"""Filters of change lists, without the boilerplate of a `SimpleListFilter` class each."""

from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet

ListChoices = Callable[[], list[tuple[str, str]]]
Condition = Callable[[QuerySet[Any]], QuerySet[Any]]


def create_choice_filter(title: Any, column: str, list_choices: ListChoices) -> type[admin.SimpleListFilter]:
    """Return a filter that offers declared values: the distinct values of a large table would need a full scan."""
    return _create_filter(title, column, list_choices, lambda rows, value: rows.filter(**{column: value}))


def create_state_filter(
    title: Any, parameter: str, states: Mapping[str, tuple[Any, Condition]]
) -> type[admin.SimpleListFilter]:
    """Return a filter by state. states: for each value its label, and the condition on the rows."""

    def apply(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
        return states[value][1](rows) if value in states else rows

    return _create_filter(title, parameter, lambda: [(value, label) for value, (label, _) in states.items()], apply)


def _create_filter(
    filter_title: Any, parameter: str, list_choices: ListChoices, apply: Callable[[QuerySet[Any], str], QuerySet[Any]]
) -> type[admin.SimpleListFilter]:
    class ListFilter(admin.SimpleListFilter):
        title = filter_title
        parameter_name = parameter

        def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
            return list_choices()

        def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
            value = self.value()
            return apply(queryset, value) if value else queryset

    return ListFilter
