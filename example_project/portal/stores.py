"""The settings of databases, broker and cache from their URLs."""

from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

SQLITE = "django.db.backends.sqlite3"
DEFAULT_MAX_AGE_SECONDS = 60


def database(
    url: str, *, file: Path, synchronous: str, is_pooled: bool = False, max_age: int | None = None
) -> dict[str, Any]:
    """Return the settings of the database at url, or of the SQLite file if url is empty.

    synchronous: with FULL, a commit survives a power failure; with NORMAL, the last commits may be lost.
    is_pooled: the URL leads to a pooler that assigns a connection for each transaction.
    max_age: how many seconds a connection is kept for later requests; default: 60.
    """
    database: dict[str, Any] = {"ENGINE": SQLITE, "NAME": file}
    if url:
        age = DEFAULT_MAX_AGE_SECONDS if max_age is None else max_age
        options = {"conn_health_checks": True, "disable_server_side_cursors": is_pooled}
        database = dict(dj_database_url.parse(url, conn_max_age=age, **options))
    if database["ENGINE"] != SQLITE:
        return database
    # IMMEDIATE: a transaction that starts as a reader and then writes may fail at once, regardless of the timeout.
    options = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": f"PRAGMA journal_mode=WAL;PRAGMA synchronous={synchronous};PRAGMA secure_delete=ON;",
    }
    return {**database, "CONN_MAX_AGE": 0, "OPTIONS": {**database.get("OPTIONS", {}), **options}}


def broker_options(url: str, *, folder: Path) -> dict[str, Any]:
    """Return Celery's transport options for the broker; create the directories for `filesystem://`."""
    if not url.startswith("filesystem:"):
        return {}
    queue, control = folder / "messages", folder / "control"
    for path in (queue, control):
        path.mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(queue),
        "data_folder_out": str(queue),
        "control_folder": str(control),
        "polling_interval": 0.2,
    }


def cache(url: str) -> dict[str, Any]:
    """Return the default cache's settings: local memory, Redis or memcached.

    Raises: ImproperlyConfigured.
    """
    scheme = url.partition("://")[0]
    if not url:
        return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    if scheme in {"redis", "rediss"}:
        return {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}
    if scheme == "memcached":
        servers = url.partition("://")[2].split(",")
        return {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache", "LOCATION": servers}
    raise ImproperlyConfigured("CACHE_URL must start with redis://, rediss:// or memcached://.")
