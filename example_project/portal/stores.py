"""Where the portal keeps things: databases, broker and cache, from their URLs."""

from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

SQLITE = "django.db.backends.sqlite3"


def database(url: str, *, file: Path, synchronous: str) -> dict[str, Any]:
    """Return a database's settings: the one at url, or else the SQLite file.

    synchronous: FULL where a commit must survive a power cut, NORMAL where the last ones may be lost with it.
    """
    declared: dict[str, Any] = {"ENGINE": SQLITE, "NAME": file}
    if url:
        declared = dict(dj_database_url.parse(url, conn_max_age=60, conn_health_checks=True))
    if declared["ENGINE"] != SQLITE:
        return declared
    # IMMEDIATE: transactions that begin as readers fail at once, whatever the timeout, when they come to write.
    options = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": f"PRAGMA journal_mode=WAL;PRAGMA synchronous={synchronous};PRAGMA secure_delete=ON;",
    }
    return {**declared, "CONN_MAX_AGE": 0, "OPTIONS": {**declared.get("OPTIONS", {}), **options}}


def broker_options(url: str, *, folder: Path) -> dict[str, Any]:
    """Return Celery's transport options for the broker; for `filesystem://` the folders, which are made."""
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
    raise ImproperlyConfigured("CACHE_URL must begin with redis://, rediss:// or memcached://.")
