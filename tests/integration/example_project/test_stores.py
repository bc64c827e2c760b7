"""Databases, broker and cache by URL."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from portal import stores


def test_database_without_url_is_the_file_with_every_option(tmp_path: Path) -> None:
    declared = stores.database("", file=tmp_path / "a.sqlite3", synchronous="FULL")
    assert declared["NAME"] == tmp_path / "a.sqlite3"
    assert declared["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert declared["OPTIONS"]["timeout"] >= 5
    for pragma in ("journal_mode=WAL", "secure_delete=ON", "synchronous=FULL"):
        assert pragma in declared["OPTIONS"]["init_command"]


def test_database_of_a_socket_directory_keeps_it(tmp_path: Path) -> None:
    declared = stores.database("postgresql://me@/portal?host=/run/pg", file=tmp_path / "a", synchronous="FULL")
    assert declared["ENGINE"] == "django.db.backends.postgresql"
    assert (declared["NAME"], declared["USER"], declared["OPTIONS"]) == ("portal", "me", {"host": "/run/pg"})


def test_database_of_an_sqlite_url_has_the_same_options(tmp_path: Path) -> None:
    declared = stores.database(f"sqlite:///{tmp_path}/b.sqlite3", file=tmp_path / "a", synchronous="NORMAL")
    assert declared["NAME"] == f"{tmp_path}/b.sqlite3"
    assert declared["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_broker_options_of_the_filesystem_make_the_folders(tmp_path: Path) -> None:
    options = stores.broker_options("filesystem://", folder=tmp_path / "queue")
    assert options["data_folder_in"] == options["data_folder_out"]
    assert all(Path(options[name]).is_dir() for name in ("data_folder_in", "control_folder"))


def test_broker_options_of_another_broker_are_its_own(tmp_path: Path) -> None:
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
def test_cache_by_scheme(url: str, backend: str) -> None:
    assert stores.cache(url)["BACKEND"] == f"django.core.cache.backends.{backend}"


def test_cache_of_an_unknown_scheme_raises() -> None:
    with pytest.raises(ImproperlyConfigured, match="CACHE_URL"):
        stores.cache("file:///tmp/cache")
