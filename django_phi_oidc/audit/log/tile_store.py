"""The place of the tiles: a folder, or one of Django's STORAGES."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages

from .. import conf
from ..merkle.checkpoint import MAX_NOTE_BYTES

CHECKPOINT_PATH = "checkpoint"
MAX_FILE_BYTES = MAX_NOTE_BYTES + 1
"""A longer file is neither a tile, of at most 8 KB, nor a checkpoint."""


class TileStore(Protocol):
    """Files below the prefix of the log."""

    def read(self, path: str) -> bytes | None:
        """Return up to MAX_FILE_BYTES of the file; None if there is none. Raises: OSError."""

    def write(self, path: str, content: bytes) -> None:
        """Create or replace the file. Raises: OSError."""

    def delete_folder(self, path: str) -> None:
        """Delete the files in a folder, if it exists and this is permitted."""


class TileFolder:
    """A folder of this machine, for example one that a web server serves. Files are replaced
    atomically.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, path: str) -> bytes | None:
        try:
            with (self._folder / path).open("rb") as file:
                return file.read(MAX_FILE_BYTES)
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=".draft-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp permits the owner only; the server of the tiles is another account.
            Path(draft).chmod(0o644)
            Path(draft).replace(target)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def delete_folder(self, path: str) -> None:
        folder = self._folder / path
        if folder.is_dir():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


class TileStorage:
    """An alias of Django's STORAGES, for example a bucket with object lock."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, path: str) -> bytes | None:
        try:
            with _translated_errors(path), self._storage.open(path) as file:
                return bytes(file.read(MAX_FILE_BYTES))
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        with _translated_errors(path):
            if self._storage.exists(path):
                # Storages that do not overwrite would choose another name.
                self._storage.delete(path)
            if self._storage.save(path, ContentFile(content)) != path:
                raise OSError(f"The storage of the tiles did not store {path} under this name.")

    def delete_folder(self, path: str) -> None:
        try:
            names = self._storage.listdir(path)[1]
            for name in names:
                self._storage.delete(f"{path}/{name}")
        except (NotImplementedError, OSError):
            # Partial tiles may be kept.
            return


@contextmanager
def _translated_errors(path: str) -> Iterator[None]:
    """Raise OSError for the errors of a storage, which are those of its library."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(
            f"The storage of the tiles failed at {path}: {type(error).__name__}."
        ) from error


def find_tile_store() -> TileStore | None:
    """Return the store of AUDIT['tiles']; None if there is none."""
    declared = conf.tiles()
    if declared is None:
        return None

    if isinstance(declared, Path):
        return TileFolder(declared)
    return TileStorage(storages[declared])
