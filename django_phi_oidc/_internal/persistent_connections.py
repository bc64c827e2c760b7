"""Databases whose connections a server under ASGI would leave open."""

from django.conf import settings


def list_leaking_aliases() -> list[str]:
    """Return the PostgreSQL databases with persistent connections and no pool.

    Under ASGI, each request has threads of its own. A persistent connection belongs to its thread,
    so no later request uses it, and it stays open until Python collects it.
    """
    leaking_aliases = []
    for alias, database in settings.DATABASES.items():
        if (
            "postgresql" in database["ENGINE"]
            and database.get("CONN_MAX_AGE", 0) != 0
            and not database.get("OPTIONS", {}).get("pool")
        ):
            leaking_aliases.append(alias)
    return leaking_aliases
