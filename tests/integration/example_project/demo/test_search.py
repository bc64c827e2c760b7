"""The search finds a text in each encoding, and only then is its absence a proof."""

import base64
import json
from pathlib import Path

import pytest
from portal.demo import plaintext_search

SECRET = "Tulegatan 7B"


@pytest.mark.parametrize(
    "content",
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
def test_readable_text_is_found(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "database-wal").write_bytes(b"\0" * 4096 + content)
    assert plaintext_search.search({"street": SECRET}, tmp_path) == ["street in database-wal"]


def test_other_texts_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("Tulegatan 8B, Tulegatan 7")
    assert plaintext_search.search({"street": SECRET}, tmp_path) == []


def test_only_key_files_are_not_searched(tmp_path: Path) -> None:
    for name in ("keys", "queue"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(SECRET)
    assert plaintext_search.search({"street": SECRET}, tmp_path) == ["street in queue"]


def test_results_do_not_contain_the_text(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(SECRET)
    assert SECRET not in " ".join(plaintext_search.search({"street": SECRET}, tmp_path))
