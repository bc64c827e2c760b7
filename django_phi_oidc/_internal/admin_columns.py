"""Columns of change lists and fields of change pages: times in UTC."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.contrib import admin
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


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


def keep_dates_together(text: str) -> SafeString:
    """Return the text as HTML in which no line ends inside a date."""
    html = _DATE.sub(r'<span class="nowrap date">\g<0></span>', escape(text))
    return mark_safe(html)  # noqa: S308 -- escaped


def build_technical_fieldset(*fields: str) -> Any:
    """Return a collapsed fieldset for ids and codes."""
    return gettext_lazy("Technical details"), {"classes": ("collapse",), "fields": fields}


def create_code_column(field_name: str, description: Any) -> Callable[[Any, Any], str]:
    """Return a field with a code or another text that has no translation."""

    @admin.display(description=description)
    def show_code(model_admin: Any, row: Any) -> str:
        text = getattr(row, field_name)
        return (
            format_html("<code>{}</code>", text) if text else model_admin.get_empty_value_display()
        )

    return show_code


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
