"""Retention keys, which are stored outside the database and destroyed when no claim needs them.

There is one for each day and retention period, and one for each person. A claim is encrypted under
both together. Then no backup of the database reveals claims that have expired since, nor those of a
person that were erased on request. Claims on legal hold are encrypted under the key of the hold
alone. The setting `KEYS['retention']` is a folder (`pathlib.Path`) or an object with the methods of
`RetentionKeyStore`, such as a KMS or Vault client.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from django.core.exceptions import ImproperlyConfigured

from ...crypto.conf import get_key_source
from ...errors import KeyMissing
from .key_folder import RetentionKeyFolder, check_length
from .key_names import is_listed_name


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
        return check_length(name, key)

    def create(self, name: str) -> bytes:
        with _translate_errors("create"):
            key = self._store.create(name)
        return check_length(name, key)

    def destroy(self, name: str) -> None:
        with _translate_errors("destroy"):
            self._store.destroy(name)

    def names(self) -> Iterable[str]:
        with _translate_errors("names"):
            result = []
            for name in self._store.names():
                if is_listed_name(name):
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
