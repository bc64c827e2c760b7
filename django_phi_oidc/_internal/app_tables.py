"""Tables of apps that were taken out of INSTALLED_APPS, such as legal holds that nothing reads."""

from collections.abc import Iterable, Iterator

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections

from .app_labels import is_own_label


def list_left_tables(using: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Return the tables with rows whose app was taken out of INSTALLED_APPS.

    The history of migrations names the apps that were installed. The portal would run as if their
    rows did not exist: a legal hold would not keep a claim, and an open emergency would not end.
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
    """Yield the tables of the removed apps. One label may begin with another one."""
    for table in sorted(tables):
        owners = []
        for label in labels:
            if table.startswith(f"{label}_"):
                owners.append(label)
        if owners and max(owners, key=len) in removed:
            yield table
