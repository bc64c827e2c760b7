"""The search for plain text in raw bytes: database files with -wal and -shm, queue and logs.

It runs in a process of its own: one that holds an SQLite database open and closes another handle of the same file
gives up its locks, and the next two writers damage the file.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

SHORTEST = 6


def search(texts: Mapping[str, str], directory: Path) -> list[str]:
    """Return `what in file` for each text that is readable in a file under directory: names, never the texts."""
    answer = subprocess.run(
        [sys.executable, __file__, directory], input=json.dumps(texts).encode(), capture_output=True, check=True
    )
    return cast(list[str], json.loads(answer.stdout))


def found(texts: Mapping[str, str], directory: Path) -> list[str]:
    """Do what `search` does, in this process."""
    needles = {what: [form for form in forms_of(text) if len(form) >= SHORTEST] for what, text in texts.items()}
    hits = []
    for path in files_of(directory):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # a message that was taken from the queue meanwhile
        hits += [f"{what} in {path.name}" for what, forms in needles.items() if any(form in content for form in forms)]
    return hits


def files_of(directory: Path) -> list[Path]:
    """Return every file but the keys: they are what seals are opened with."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.parent.name != "keys")


def forms_of(text: str) -> Iterator[bytes]:
    """Yield the bytes by which a text would be recognised: UTF-8, UTF-16, JSON, hexadecimal, base64 at each offset."""
    plain = text.encode()
    yield from (plain, text.encode("utf-16-le"), json.dumps(text)[1:-1].encode(), plain.hex().encode())
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + plain).rstrip(b"=")
        # The characters at both ends also depend on the neighbours of the text.
        yield encoded[offset + 1 if offset else 0 : -1]


if __name__ == "__main__":
    json.dump(found(json.load(sys.stdin), Path(sys.argv[1])), sys.stdout)
