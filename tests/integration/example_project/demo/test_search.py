"""A search that finds nothing proves something only if it finds what is there."""

import base64
import json
from pathlib import Path

import pytest
from portal.demo import plaintext_search

SECRET = "Tulegatan 7B"


@pytest.mark.parametrize(
    "written",
    [
        SECRET.encode(),
        b"before " + SECRET.encode() + b" after",
        SECRET.encode("utf-16-le"),
        SECRET.encode().hex().encode(),
        *(base64.b64encode(b"x" * offset + SECRET.encode() + b"tail") for offset in range(6)),
        base64.b64encode(SECRET.encode()),
        json.dumps({"address": SECRET}).encode(),
    ],
)
def test_search_of_a_readable_text_finds_it(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "database-wal").write_bytes(b"\0" * 4096 + written)
    assert plaintext_search.search({"street": SECRET}, tmp_path) == ["street in database-wal"]


def test_search_of_another_text_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("Tulegatan 8B, Tulegatan 7")
    assert plaintext_search.search({"street": SECRET}, tmp_path) == []


def test_search_leaves_out_the_keys_alone(tmp_path: Path) -> None:
    for folder in ("keys", "queue"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / folder).write_text(SECRET)
    assert plaintext_search.search({"street": SECRET}, tmp_path) == ["street in queue"]


def test_search_never_returns_the_text(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(SECRET)
    assert SECRET not in " ".join(plaintext_search.search({"street": SECRET}, tmp_path))
