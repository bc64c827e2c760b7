"""The attack kit's search, in files, by a process of its own.

One that holds an SQLite database open, and closes another handle of the same file, gives up its locks.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from django_phi_oidc.testing.canary.encoded_text_search import find_texts


def found_in_files(texts: Mapping[str, str], paths: Iterable[Path]) -> dict[str, set[str]]:
    """Return which of the texts are in which file, by its name; a file that is gone is no fault."""
    asked = json.dumps({"texts": texts, "paths": [str(path) for path in paths]}).encode()
    answer = subprocess.run([sys.executable, "-m", __name__], input=asked, capture_output=True, check=True)
    told = cast(dict[str, list[str]], json.loads(answer.stdout))
    return {name: set(names) for name, names in told.items()}


def main() -> None:
    """Search files for texts, as JSON on standard input says, and print what was found."""
    asked = json.load(sys.stdin)
    told = {}
    for path in map(Path, asked["paths"]):
        with suppress(FileNotFoundError):
            told[path.name] = sorted(find_texts(asked["texts"], path.read_bytes()))
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
