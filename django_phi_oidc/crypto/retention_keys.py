"""Retention keys, which are stored outside the database and destroyed when no claim needs them.

There is one for each day and retention period, and one for each person. A claim is encrypted under
both together. Then no backup of the database reveals claims that have expired since, nor those of a
person that were erased on request. Claims on legal hold are encrypted under the key of the hold
alone. The setting `KEYS['retention']` is a folder (`pathlib.Path`) or an object with the methods of
`RetentionKeyStore`, such as a KMS or Vault client.
"""

import base64
import hmac
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal, Protocol, cast

from django.core.exceptions import ImproperlyConfigured
from django.views.decorators.debug import sensitive_variables

from .._internal import randomness
from ..errors import KeyMissing
from .conf import get_key_source

KEY_BYTES = 32
MARKER_NAME = "phi-oidc-retention-keys"
"""A file in the folder of the keys. An empty folder that was mounted in its place does not have
it.
"""
HOLD_PREFIX = "hold-"
_PERSON_PREFIX = "person/"
_SEPARATOR = "+"
_DAY = "[0-9]{8}-(session|[0-9]{1,10})"
_HOLD = "hold-[0-9a-f]{32}"
_PERSON = "person/[0-9a-f]{2}/[0-9a-f]{30}"
_STORED_NAME = re.compile(f"{_DAY}|{_HOLD}|{_PERSON}")
NAMES_PATTERN = f"({_DAY}([+]{_PERSON})?|{_HOLD})"
"""The names in a ciphertext, for Python and PostgreSQL."""
_NAMES = re.compile(NAMES_PATTERN)
KeyCache = dict[str, bytes]
"""Keys by name that one operation has read. A longer use would miss that a key is destroyed."""


class RetentionKeyStore(Protocol):
    """Where the keys are. Any exception of a method counts as `KeyMissing`; no data is lost by
    that.
    """

    def get(self, name: str) -> bytes | None:
        """Return the 32 bytes of that key; None if it does not exist or was destroyed."""

    def create(self, name: str) -> bytes:
        """Return the key of that name, creating it if necessary. Concurrent calls all get the same
        key.
        """

    def destroy(self, name: str) -> None:
        """Destroy the key of that name and every copy of it, if it exists."""

    def names(self) -> Iterable[str]:
        """Return the names of the keys of days and holds. Other names are ignored, such as those of
        persons.

        It is called every 10 seconds. There may be millions of persons: a name `person/…` can be
        left out.
        """


def is_enabled() -> bool:
    """Say whether claims are encrypted under retention keys."""
    return get_key_source("retention") is not None


def get_store() -> RetentionKeyStore:
    """Return the configured key store. Raises: KeyMissing, when none is configured."""
    declared = get_key_source("retention")
    if declared is None:
        raise KeyMissing(
            "PHI_OIDC['KEYS']['retention'] is not set, but there are claims under retention keys."
        )
    if isinstance(declared, Path):
        return RetentionKeyFolder(declared)
    if not all(
        callable(getattr(declared, name, None)) for name in ("get", "create", "destroy", "names")
    ):
        message = (
            "PHI_OIDC['KEYS']['retention'] must be a folder, or have get, create, destroy, names."
        )
        raise ImproperlyConfigured(message)
    return _ProjectStore(cast(RetentionKeyStore, declared))


class _ProjectStore:
    """The project's own store. Any exception of it becomes `KeyMissing`, and its keys have the
    right length.
    """

    def __init__(self, store: RetentionKeyStore) -> None:
        self._store = store

    def get(self, name: str) -> bytes | None:
        with _translate_errors("get"):
            key = self._store.get(name)
        if key is None:
            return None
        return _check_length(name, key)

    def create(self, name: str) -> bytes:
        with _translate_errors("create"):
            key = self._store.create(name)
        return _check_length(name, key)

    def destroy(self, name: str) -> None:
        with _translate_errors("destroy"):
            self._store.destroy(name)

    def names(self) -> Iterable[str]:
        with _translate_errors("names"):
            result = []
            for name in self._store.names():
                if _is_listed(name):
                    result.append(name)
            return result


@contextmanager
def _translate_errors(method: str) -> Iterator[None]:
    try:
        yield
    except KeyMissing:
        raise
    except Exception as error:
        raise KeyMissing(f"PHI_OIDC['KEYS']['retention']: {method} failed.") from error


def _check_length(name: str, key: object) -> bytes:
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise KeyMissing(f"The retention key {name} is not {KEY_BYTES} bytes.")
    return key


def retention_key_name(obtained_at: datetime, retention: timedelta | Literal["session"]) -> str:
    """Return the key name for a claim: the day on which it was obtained (UTC), and its retention in
    seconds.
    """
    if isinstance(retention, timedelta):
        kind = str(int(retention.total_seconds()))
    else:
        kind = retention
    return f"{obtained_at.astimezone(UTC):%Y%m%d}-{kind}"


def find_day_key_name(obtained_at: datetime, retention: timedelta | Literal["session"]) -> str:
    """Return the name of the key of such a claim; "" if retention keys are disabled."""
    if not is_enabled():
        return ""
    return retention_key_name(obtained_at, retention)


def hold_key_name(hold_id: str) -> str:
    """Return the name of the key of a legal hold. hold_id: 32 hexadecimal digits."""
    return f"{HOLD_PREFIX}{hold_id}"


def person_key_name(key_id: uuid.UUID) -> str:
    """Return the name of the key of a person. key_id: random. Its first two digits divide a folder
    into 256 parts.
    """
    return f"{_PERSON_PREFIX}{key_id.hex[:2]}/{key_id.hex[2:]}"


def join_names(bucket: str, person_key_id: uuid.UUID) -> str:
    """Return the names of the keys of a claim: those of its day and of the person, or the bucket
    alone.
    """
    if not bucket or bucket.startswith(HOLD_PREFIX):
        return bucket
    return f"{bucket}{_SEPARATOR}{person_key_name(person_key_id)}"


def is_retention_key_name(name: str) -> bool:
    """Say whether a store can have a key of that name."""
    return _is_valid(name, _STORED_NAME)


def are_retention_key_names(names: str) -> bool:
    """Say whether these are the names in a text that is encrypted under retention keys, and not an
    encryption key.
    """
    return _is_valid(names, _NAMES)


def find_key(names: str, *, cache: KeyCache | None = None) -> bytes | None:
    """Return the key of texts with these names; None if one of the keys was destroyed. Raises:
    KeyMissing.
    """
    return _combine_keys(names, get_store().get, cache)


def get_or_create_key(names: str, *, cache: KeyCache | None = None) -> bytes:
    """Return the key of texts with these names, creating each of the keys if necessary. Raises:
    KeyMissing.
    """
    return cast(bytes, _combine_keys(names, get_store().create, cache))


@sensitive_variables()
def _combine_keys(
    names: str, load: Callable[[str], bytes | None], cache: KeyCache | None
) -> bytes | None:
    """Return the key for which all of the named keys are necessary. Spec: NIST SP 800-133 Rev. 2,
    6.3.
    """
    cache = {} if cache is None else cache
    keys = []
    for name in names.split(_SEPARATOR):
        key = cache.get(name) or load(name)
        if key is None:
            return None
        cache[name] = key
        keys.append(key)

    if len(keys) == 1:
        return keys[0]
    return hmac.digest(b"django_phi_oidc retention", b"".join(keys), "sha256")


def parse_key_date(name: str) -> date | None:
    """Return the day of the claims under that key; None for the key of a legal hold."""
    if name.startswith(HOLD_PREFIX):
        return None
    return datetime.strptime(name[:8], "%Y%m%d").replace(tzinfo=UTC).date()


@lru_cache(maxsize=64)
def _is_valid(names: str, pattern: re.Pattern[str]) -> bool:
    if not pattern.fullmatch(names):
        return False
    with suppress(ValueError):
        if not names.startswith(_PERSON_PREFIX):
            parse_key_date(names)
        return True
    return False


def _is_listed(name: str) -> bool:
    return is_retention_key_name(name) and not name.startswith(_PERSON_PREFIX)


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
    _sync_folder(folder)
    return True


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
        return _check_length(name, key)

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
            _sync_folder(path.parent)
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
            _sync_folder(path.parent)
        except FileNotFoundError:
            self._check_marker()
        except OSError as error:
            raise KeyMissing(f"The retention key {name} can't be destroyed.") from error

    def names(self) -> Iterable[str]:
        try:
            names = sorted(path.name for path in self._folder.iterdir() if _is_listed(path.name))
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
                _sync_folder((self._folder / parent).parent)

    def _check_marker(self) -> None:
        if not os.path.isfile(os.path.join(self._folder, MARKER_NAME)):
            raise KeyMissing(
                f"The folder of the retention keys has no file {MARKER_NAME}: mount the folder "
                "that has the keys. For a new folder, run manage.py phi_oidc keys generate."
            )


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_durably(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
