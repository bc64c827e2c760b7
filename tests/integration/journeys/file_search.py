"""Search files for texts in a separate process.

A process that has an SQLite database open loses its locks when it closes another handle of the same file.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from django_phi_oidc.testing.canary.encoded_text_search import find_texts


def find_in_files(texts: Mapping[str, str], paths: Iterable[Path]) -> dict[str, set[str]]:
    """Return the texts found in each file, by file name. Missing files are ignored."""
    query = json.dumps({"texts": texts, "paths": [str(path) for path in paths]}).encode()
    answer = subprocess.run([sys.executable, "-m", __name__], input=query, capture_output=True, check=True)
    found = cast(dict[str, list[str]], json.loads(answer.stdout))
    return {name: set(names) for name, names in found.items()}


def main() -> None:
    """Search as described by JSON on standard input, and print the result as JSON."""
    query = json.load(sys.stdin)
    found = {}
    for path in map(Path, query["paths"]):
        with suppress(FileNotFoundError):
            found[path.name] = sorted(find_texts(query["texts"], path.read_bytes()))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
