"""Columns of change lists and fields of change pages: times in UTC."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.contrib import admin
from django.utils.html import format_html


class AdminLink(NamedTuple):
    """A text with a link to a page."""

    text: str
    url: str


def format_utc(moment: datetime | None) -> str:
    """Return the time to the second, in UTC, without the name of the zone, which the label has;
    empty for None.
    """
    if moment:
        return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return ""


def create_time_column(field_name: str, description: Any) -> Callable[[Any, Any], str]:
    """Return a column with the times of a model field. description: it names UTC."""

    @admin.display(description=description, ordering=field_name)
    def show_time(model_admin: Any, row: Any) -> str:
        text = format_utc(getattr(row, field_name))
        # A class of Django's: one line in a narrow column.
        return (
            format_html('<span class="nowrap">{}</span>', text)
            if text
            else model_admin.get_empty_value_display()
        )

    return show_time
