"""Columns and fields of the lists and change pages of apps, in addition to
`_internal/admin_columns.py`.
"""

import re
from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


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
