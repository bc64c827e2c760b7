"""Retention keys: a key for each day and retention, kept outside the database, and destroyed when no claim needs it.

Then no backup of the database can be read for what has lapsed since. `KEYS['retention']` of the settings is a folder
(`pathlib.Path`) or an object like `RetentionKeys`: a KMS or Vault client.
"""

import base64
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol, cast

from django.core.exceptions import ImproperlyConfigured

from .. import conf
from .._internal import randomness
from ..errors import KeyMissing

KEY_BYTES = 32
_NAME_PATTERN = re.compile(r"[0-9]{8}-(?:session|[0-9]{1,10})|hold-[0-9a-f]{32}")


class RetentionKeyStore(Protocol):
    """Where the keys are. Any method may raise `KeyMissing` when it can't be reached: nothing is lost by that."""

    def get(self, name: str) -> bytes | None:
        """Return the 32 bytes of that name; None when there is no such key, or none any more."""

    def create(self, name: str) -> bytes:
        """Return the key of that name, made when there is none. Of several at once all get the same one."""

    def destroy(self, name: str) -> None:
        """Destroy the key of that name, if there is one, with every copy of it."""

    def names(self) -> Iterable[str]:
        """Return the names of all keys."""


def is_enabled() -> bool:
    """Say whether claims are sealed under keys of their own retention."""
    return conf.get_key_source("retention") is not None


def get_store() -> RetentionKeyStore:
    """Return where the keys are. Raises: KeyMissing, when nothing says where."""
    declared = conf.get_key_source("retention")
    if declared is None:
        raise KeyMissing("PHI_OIDC['KEYS']['retention'] is not set, and there are claims under such keys.")
    if isinstance(declared, Path):
        return RetentionKeyFolder(declared)
    if not all(callable(getattr(declared, name, None)) for name in ("get", "create", "destroy", "names")):
        raise ImproperlyConfigured(
            "PHI_OIDC['KEYS']['retention'] must be a folder, or have get, create, destroy, names."
        )
    return cast(RetentionKeyStore, declared)


def retention_key_name(obtained_at: datetime, retention: timedelta | Literal["session"]) -> str:
    """Return the name of the key for what was obtained then: its day, UTC, and its retention in seconds."""
    kind = str(int(retention.total_seconds())) if isinstance(retention, timedelta) else retention
    return f"{obtained_at.astimezone(UTC):%Y%m%d}-{kind}"


def hold_key_name(hold_id: str) -> str:
    """Return the name of the key of a legal hold. hold_id: 32 hexadecimal digits."""
    return f"hold-{hold_id}"


def is_retention_key_name(name: str) -> bool:
    """Say whether that is the name of a retention key, and not the id of an encryption key."""
    if not _NAME_PATTERN.fullmatch(name):
        return False
    with suppress(ValueError):
        parse_key_date(name)
        return True
    return False


def parse_key_date(name: str) -> date | None:
    """Return the day on which claims were sealed under that key; None when it is the key of a hold."""
    return None if name.startswith("hold-") else datetime.strptime(name[:8], "%Y%m%d").replace(tzinfo=UTC).date()


class RetentionKeyFolder:
    """Keys as files of one folder, mode 0600, which all servers share and no backup has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> bytes | None:
        path = self._get_path(name)
        try:
            key = base64.urlsafe_b64decode(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise KeyMissing(f"The retention key {name} can't be read.") from error
        if len(key) != KEY_BYTES:
            raise KeyMissing(f"The retention key {name} is damaged.")
        return key

    def create(self, name: str) -> bytes:
        if key := self.get(name):
            return key
        path, made = self._get_path(name), self._folder / f".{name}.{randomness.token_bytes(8).hex()}"
        try:
            with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(base64.urlsafe_b64encode(randomness.token_bytes(KEY_BYTES)))
                file.flush()
                os.fsync(file.fileno())
            # Nothing is replaced: of several, the first one's key is it.
            with suppress(FileExistsError):
                os.link(made, path)
            made.unlink()
            self._sync_folder()
        except OSError as error:
            raise KeyMissing(f"The retention key {name} can't be made.") from error
        key = self.get(name)
        if key is None:
            raise KeyMissing(f"The retention key {name} went as it was made.")
        return key

    def destroy(self, name: str) -> None:
        path = self._get_path(name)
        try:
            # Of a file system that writes in place, nothing is left.
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
            self._sync_folder()
        except FileNotFoundError:
            return
        except OSError as error:
            raise KeyMissing(f"The retention key {name} can't be destroyed.") from error

    def names(self) -> Iterable[str]:
        try:
            return sorted(path.name for path in self._folder.iterdir() if is_retention_key_name(path.name))
        except OSError as error:
            raise KeyMissing("The folder of the retention keys can't be read.") from error

    def _get_path(self, name: str) -> Path:
        if not is_retention_key_name(name):
            raise ValueError("That is no name of a retention key.")
        return self._folder / name

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
