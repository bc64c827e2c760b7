"""Searches for plaintext in files: databases with -wal and -shm files, queue and logs.

The search runs in a separate process: if a process that uses an SQLite database closes another handle of the same file,
it loses its POSIX locks, and concurrent writers may corrupt the database.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

MIN_NEEDLE_BYTES = 6


def search(texts: Mapping[str, str], directory: Path) -> list[str]:
    """Return `name in file` for each text that is readable in a file under directory; never the texts."""
    process = subprocess.run(
        [sys.executable, __file__, directory], input=json.dumps(texts).encode(), capture_output=True, check=True
    )
    return cast(list[str], json.loads(process.stdout))


def search_in_process(texts: Mapping[str, str], directory: Path) -> list[str]:
    """Run the search in this process."""
    needles = {
        name: [form for form in list_encoded_forms(text) if len(form) >= MIN_NEEDLE_BYTES]
        for name, text in texts.items()
    }
    hits = []
    for path in list_files(directory):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # the worker has received this message meanwhile
        hits += [f"{name} in {path.name}" for name, forms in needles.items() if any(form in content for form in forms)]
    return hits


def list_files(directory: Path) -> list[Path]:
    """Return all files except the encryption keys."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.parent.name != "keys")


def list_encoded_forms(text: str) -> Iterator[bytes]:
    """Yield the text as UTF-8, UTF-16, JSON, hexadecimal, and base64 at each offset."""
    plain = text.encode()
    yield from (plain, text.encode("utf-16-le"), json.dumps(text)[1:-1].encode(), plain.hex().encode())
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + plain).rstrip(b"=")
        # The first and last characters also depend on the surrounding bytes.
        yield encoded[offset + 1 if offset else 0 : -1]


if __name__ == "__main__":
    json.dump(search_in_process(json.load(sys.stdin), Path(sys.argv[1])), sys.stdout)
