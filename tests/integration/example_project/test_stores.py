"""Settings of databases, broker and cache from URLs."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from portal import stores


def test_database_without_url_is_the_sqlite_file_with_all_options(tmp_path: Path) -> None:
    settings = stores.database("", file=tmp_path / "a.sqlite3", synchronous="FULL")
    assert settings["NAME"] == tmp_path / "a.sqlite3"
    assert settings["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert settings["OPTIONS"]["timeout"] >= 5
    for pragma in ("journal_mode=WAL", "secure_delete=ON", "synchronous=FULL"):
        assert pragma in settings["OPTIONS"]["init_command"]


def test_database_url_with_a_socket_directory_keeps_it(tmp_path: Path) -> None:
    settings = stores.database("postgresql://me@/portal?host=/run/pg", file=tmp_path / "a", synchronous="FULL")
    assert settings["ENGINE"] == "django.db.backends.postgresql"
    assert (settings["NAME"], settings["USER"], settings["OPTIONS"]) == ("portal", "me", {"host": "/run/pg"})


@pytest.mark.parametrize("is_pooled", [False, True], ids=["database", "pooler"])
def test_database_behind_a_pooler_gets_no_cursors_of_the_server(is_pooled: bool, tmp_path: Path) -> None:
    settings = stores.database("postgresql:///portal", file=tmp_path / "a", synchronous="FULL", is_pooled=is_pooled)
    assert settings["DISABLE_SERVER_SIDE_CURSORS"] is is_pooled
    assert "prepare_threshold" not in settings.get("OPTIONS", {})


@pytest.mark.parametrize(("max_age", "kept_seconds"), [(None, 60), (0, 0)], ids=["default", "asgi"])
def test_database_connections_are_kept_for_that_time(max_age: int | None, kept_seconds: int, tmp_path: Path) -> None:
    settings = stores.database("postgresql:///portal", file=tmp_path / "a", synchronous="FULL", max_age=max_age)
    assert settings["CONN_MAX_AGE"] == kept_seconds


def test_database_with_an_sqlite_url_has_the_same_options(tmp_path: Path) -> None:
    settings = stores.database(f"sqlite:///{tmp_path}/b.sqlite3", file=tmp_path / "a", synchronous="NORMAL")
    assert settings["NAME"] == f"{tmp_path}/b.sqlite3"
    assert settings["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_filesystem_broker_options_create_the_directories(tmp_path: Path) -> None:
    options = stores.broker_options("filesystem://", folder=tmp_path / "queue")
    assert options["data_folder_in"] == options["data_folder_out"]
    assert all(Path(options[name]).is_dir() for name in ("data_folder_in", "control_folder"))


def test_other_brokers_get_no_options(tmp_path: Path) -> None:
    assert stores.broker_options("amqp://localhost", folder=tmp_path / "queue") == {}
    assert not (tmp_path / "queue").exists()


@pytest.mark.parametrize(
    ("url", "backend"),
    [
        ("", "locmem.LocMemCache"),
        ("redis://127.0.0.1/1", "redis.RedisCache"),
        ("rediss://127.0.0.1/1", "redis.RedisCache"),
        ("memcached://127.0.0.1:11211", "memcached.PyMemcacheCache"),
    ],
)
def test_cache_backend_depends_on_the_scheme(url: str, backend: str) -> None:
    assert stores.cache(url)["BACKEND"] == f"django.core.cache.backends.{backend}"


def test_cache_with_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="CACHE_URL"):
        stores.cache("file:///tmp/cache")
