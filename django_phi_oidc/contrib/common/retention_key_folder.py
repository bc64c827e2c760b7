"""The folder of the retention keys, its marker, and its preparation."""

import os
from pathlib import Path

from ...config.sections import get_group_members
from ...crypto.conf import get_key_source

MARKER_NAME = "phi-oidc-retention-keys"
"""A file in the folder of the keys. An empty folder that was mounted in its place does not have
it.
"""


def find_key_folder() -> Path | None:
    """Return the folder that KEYS['retention'] names; None if the keys are not in a folder, or
    `contrib.retention_keys` is not installed.
    """
    if "retention" not in get_group_members("KEYS"):
        return None
    source = get_key_source("retention")
    if isinstance(source, Path):
        return source
    return None


def prepare_folder(folder: Path) -> bool:
    """Create the folder if it does not exist, and write the marker; return False if it has the
    marker already.

    Raises: OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(folder / MARKER_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    sync_folder(folder)
    return True


def sync_folder(path: Path) -> None:
    """Write the entries of a folder to the disk. Raises: OSError."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
