"""Rows of the database as JSON values, for the exports of the data of a person."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import Model


def serialize_row(row: Model, *names: str, optional: Sequence[str] = ()) -> dict[str, Any]:
    """Return these fields of the row.

    optional: the names of further fields, with None instead of an empty text.
    """
    values = {name: _serialize_value(getattr(row, name)) for name in names}
    for name in optional:
        values[name] = _serialize_value(getattr(row, name)) or None
    return values


def format_datetime(moment: datetime | None) -> str | None:
    """Return the time in ISO 8601, to the second."""
    if moment is None:
        return None
    return moment.isoformat(timespec="seconds")


def _serialize_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_datetime(value)
    return value
