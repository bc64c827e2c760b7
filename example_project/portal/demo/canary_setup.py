"""A control for the search: one text, planted in each kind of place that is searched, and taken out again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connections

from django_phi_oidc._internal import randomness

TABLE = "demo_control"


@contextmanager
def control(var: Path) -> Iterator[tuple[list[str], str]]:
    """Plant a text in both databases, in the queue and among the logs; yield the names of the files, and the text."""
    text = f"planted-{randomness.token_b64url(18)}"
    files = [var / "queue" / "messages" / "control.planted", var / "log" / "control.log"]
    for file in files:
        file.write_text(text)
    try:
        for alias in connections:
            with connections[alias].cursor() as cursor:
                cursor.execute(f"CREATE TABLE {TABLE} (value text)")
                cursor.execute(f"INSERT INTO {TABLE} VALUES (%s)", [text])
        databases = [Path(connections[alias].settings_dict["NAME"]).name for alias in connections]
        yield [*databases, *(file.name for file in files)], text
    finally:
        for alias in connections:
            with connections[alias].cursor() as cursor:
                cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
        for file in files:
            file.unlink()
