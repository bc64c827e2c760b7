"""Tables with rows of apps that were removed from INSTALLED_APPS."""

from collections.abc import Iterable, Iterator

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections

from .app_labels import is_own_label


def list_left_tables(using: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Return the tables that contain rows although their app was removed from INSTALLED_APPS.

    The history of migrations lists the apps that were installed. Without the app, the portal
    ignores their rows: a legal hold would not keep a claim, and an open emergency access would not
    end.
    """
    connection = connections[using]
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        if "django_migrations" not in tables:
            return []
        cursor.execute("SELECT DISTINCT app FROM django_migrations")
        labels = set()
        for (label,) in cursor.fetchall():
            if is_own_label(label):
                labels.add(label)
        installed = {config.label for config in apps.get_app_configs()}
        left = []
        for table in _list_tables_of(labels - installed, tables, labels):
            cursor.execute(f"SELECT 1 FROM {connection.ops.quote_name(table)} LIMIT 1")  # noqa: S608 -- a name from the catalogue
            if cursor.fetchone() is not None:
                left.append(table)
    return left


def _list_tables_of(removed: set[str], tables: Iterable[str], labels: set[str]) -> Iterator[str]:
    """Yield the tables of the removed apps. If several labels match a table, the longest counts."""
    for table in sorted(tables):
        owners = []
        for label in labels:
            if table.startswith(f"{label}_"):
                owners.append(label)
        if owners and max(owners, key=len) in removed:
            yield table
