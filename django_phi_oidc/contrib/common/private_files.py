"""Files that a subcommand writes secrets or personal data to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def create_private_file(path: Path) -> Iterator[TextIO]:
    """Open a new file that only its owner can read. It is deleted again if the block fails.

    Raises: OSError, also when the file exists.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
    except BaseException:
        path.unlink()
        raise
