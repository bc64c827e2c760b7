"""An index of the ends of texts: an expression of the models and of migrations."""

from typing import Any

from django.db import models
from django.db.models import Q

TEXT_END_LENGTH = 7
"""With the byte of the length, eight bytes: one character more would take eight bytes more."""


class TextEnd(models.Func):
    """The last TEXT_END_LENGTH characters of a text: of a UUID, they are random.

    An index of them is half as large as one of the texts. A query must also compare the text itself. So only for
    columns whose texts have random ends: of others, a query would read all rows with the same one.
    """

    template = f"SUBSTR(%(expressions)s, -{TEXT_END_LENGTH})"
    output_field = models.CharField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template=f"RIGHT(%(expressions)s, {TEXT_END_LENGTH})", **context)


def match_text_end(name: str, value: str) -> tuple[models.F | TextEnd, str, Q]:
    """Return what the index of a column's ends has, what it is for a value, and the condition for the value itself.

    The condition is a CASE, which PostgreSQL expects to be true for half of the rows. With `=` it may expect few rows,
    and sort all events of a user with many of them, instead of reading a page in the order of the index.
    """
    is_value = Q(models.Case(models.When(**{name: value}, then=True), default=False))
    return TextEnd(name), value[-TEXT_END_LENGTH:], is_value
