"""Plants a control text in each kind of place that is searched, and removes it afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connections

from django_phi_oidc._internal import randomness

TABLE = "demo_control"


@contextmanager
def planted_control(var: Path) -> Iterator[tuple[list[str], str]]:
    """Plant a text in both databases, the queue and the logs; yield the names of the files, and the text."""
    text = f"planted-{randomness.token_b64url(18)}"
    paths = [var / "queue" / "messages" / "control.planted", var / "log" / "control.log"]
    for path in paths:
        path.write_text(text)
    try:
        for alias in connections:
            with connections[alias].cursor() as cursor:
                cursor.execute(f"CREATE TABLE {TABLE} (value text)")
                cursor.execute(f"INSERT INTO {TABLE} VALUES (%s)", [text])
        databases = [Path(connections[alias].settings_dict["NAME"]).name for alias in connections]
        yield [*databases, *(path.name for path in paths)], text
    finally:
        for alias in connections:
            with connections[alias].cursor() as cursor:
                cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
        for path in paths:
            path.unlink()
