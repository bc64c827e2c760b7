"""Retention keys in a folder."""

import base64
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..._internal import randomness
from ...errors import KeyMissing
from ..common.retention_key_folder import MARKER_NAME, sync_folder
from .key_names import is_listed_name, is_retention_key_name

KEY_BYTES = 32


def check_length(name: str, key: object) -> bytes:
    """Return the key. Raises: KeyMissing, if it is not KEY_BYTES."""
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise KeyMissing(f"The retention key {name} is not {KEY_BYTES} bytes.")
    return key


class RetentionKeyFolder:
    """Keys as files of one folder with mode 0600. All servers share it; backups must exclude it.

    Without the marker that `prepare_folder` writes, each method raises KeyMissing: in another
    folder, every key would look destroyed, and new keys would be lost as soon as the right folder
    is back.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> bytes | None:
        path = self._get_path(name)
        try:
            with path.open("rb", buffering=0) as file:
                key: bytes | None = base64.urlsafe_b64decode(file.read())
        except FileNotFoundError:
            key = None
        except (OSError, ValueError) as error:
            raise KeyMissing(f"The retention key {name} can't be read.") from error
        # After the read, so that a folder that went away during it is noticed.
        self._check_marker()

        if key is None:
            return None
        return check_length(name, key)

    def create(self, name: str) -> bytes:
        if key := self.get(name):
            return key
        path = self._get_path(name)
        temporary = path.with_name(f".{path.name}.{randomness.token_bytes(8).hex()}")
        try:
            self._create_parents(path)
            with os.fdopen(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            ) as file:
                _write_durably(file, base64.urlsafe_b64encode(randomness.token_bytes(KEY_BYTES)))
            # Never replaces a file: of concurrent calls, the first one determines the key.
            with suppress(FileExistsError):
                os.link(temporary, path)
            temporary.unlink()
            sync_folder(path.parent)
        except OSError as error:
            raise KeyMissing(f"The retention key {name} can't be created.") from error
        key = self.get(name)
        if key is None:
            raise KeyMissing(f"The retention key {name} was deleted during its creation.")
        return key

    def destroy(self, name: str) -> None:
        path = self._get_path(name)
        try:
            # On a file system that writes in place, this erases the key.
            with path.open("r+b") as file:
                _write_durably(file, bytes(path.stat().st_size))
            path.unlink()
            sync_folder(path.parent)
        except FileNotFoundError:
            self._check_marker()
        except OSError as error:
            raise KeyMissing(f"The retention key {name} can't be destroyed.") from error

    def names(self) -> Iterable[str]:
        try:
            names = sorted(
                path.name for path in self._folder.iterdir() if is_listed_name(path.name)
            )
        except OSError as error:
            raise KeyMissing("The folder of the retention keys can't be read.") from error
        self._check_marker()
        return names

    def _get_path(self, name: str) -> Path:
        if not is_retention_key_name(name):
            raise ValueError("This is not the name of a retention key.")
        return self._folder / name

    def _create_parents(self, path: Path) -> None:
        for parent in reversed(path.relative_to(self._folder).parents[:-1]):
            with suppress(FileExistsError):
                (self._folder / parent).mkdir(mode=0o700)
                sync_folder((self._folder / parent).parent)

    def _check_marker(self) -> None:
        if not os.path.isfile(os.path.join(self._folder, MARKER_NAME)):
            raise KeyMissing(
                f"The folder of the retention keys has no file {MARKER_NAME}: mount the folder "
                "that has the keys. For a new folder, run manage.py phi_oidc keys generate."
            )


def _write_durably(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
