"""Retention keys: created once, shared, and destroyed for good."""

import multiprocessing
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_phi_oidc.contrib.common.retention_key_folder import MARKER_NAME, prepare_folder
from django_phi_oidc.contrib.retention_keys.key_folder import RetentionKeyFolder
from django_phi_oidc.contrib.retention_keys.key_names import is_retention_key_name, parse_key_date, retention_key_name
from django_phi_oidc.contrib.retention_keys.key_store import get_store, is_enabled
from django_phi_oidc.crypto import keyring
from django_phi_oidc.crypto.claim_keys import are_claim_key_names, get_or_create_key
from django_phi_oidc.errors import KeyMissing, KeyUnknown, Undecryptable
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.retention_key_folder import use_retention_keys

NAME = "20261124-86400"
HOLD = "hold-" + "0123456789abcdef" * 2
PERSON = "person/01/23456789abcdef0123456789abcdef"
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> RetentionKeyFolder:
    return use_retention_keys(settings, tmp_path)


def test_key_is_the_same_until_it_is_destroyed(folder: RetentionKeyFolder, tmp_path: Path) -> None:
    assert folder.get(NAME) is None
    key = folder.create(NAME)
    assert len(key) == 32
    assert folder.create(NAME) == RetentionKeyFolder(tmp_path).get(NAME) == key
    assert folder.create(HOLD) != key
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert folder.names() == [NAME, HOLD]
    folder.destroy(NAME)
    folder.destroy(NAME)
    assert (folder.get(NAME), folder.names()) == (None, [HOLD])
    assert folder.create(NAME) != key


def test_destroyed_key_is_overwritten(folder: RetentionKeyFolder, tmp_path: Path) -> None:
    folder.create(NAME)
    (tmp_path / "another name of the same file").hardlink_to(tmp_path / NAME)
    folder.destroy(NAME)
    assert set((tmp_path / "another name of the same file").read_bytes()) == {0}


def make(folder: Path, name: str) -> bytes:
    return RetentionKeyFolder(folder).create(name)


def test_concurrent_processes_create_one_key(tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    names = [f"202611{day:02}-{kind}" for day in range(1, 21) for kind in ("session", "60")]
    names += [f"person/{number % 4:02x}/{number:030x}" for number in range(20)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        created = pool.starmap(make, [(tmp_path, name) for name in names for _ in range(8)], chunksize=1)
    by_name = {name: set(created[8 * at : 8 * at + 8]) for at, name in enumerate(names)}
    assert [len(keys) for keys in by_name.values()] == [1] * len(names)
    assert len(set.union(*by_name.values())) == len(names)
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([*names, MARKER_NAME])


@pytest.mark.parametrize(
    "name",
    [
        *("", "..", "../20261124-60", "20261124-", "20261124-60\n", "hold-1", "0123abcd", "20261399-60"),
        *("person", "person/01", f"{PERSON}0", PERSON.replace("/01/", "/../"), f"{NAME}+{PERSON}"),
    ],
)
def test_invalid_key_name_is_refused(folder: RetentionKeyFolder, name: str) -> None:
    for act in (folder.get, folder.create, folder.destroy):
        with pytest.raises(ValueError, match="not the name of a retention key"):
            act(name)
    assert not is_retention_key_name(name)
    assert all(is_retention_key_name(valid) for valid in (NAME, HOLD, PERSON))


@pytest.mark.parametrize(
    "names",
    [
        "",
        "0123abcd",
        PERSON,
        f"{HOLD}+{PERSON}",
        f"{PERSON}+{NAME}",
        f"{NAME}+{NAME}",
        f"{NAME}+",
        f"20261399-60+{PERSON}",
    ],
)
def test_g7_text_names_the_key_of_a_day_and_a_person_or_one_key(names: str) -> None:
    assert not are_claim_key_names(names)
    assert all(are_claim_key_names(valid) for valid in (NAME, HOLD, f"{NAME}+{PERSON}"))


def test_g7_folder_has_the_key_of_a_person_in_a_part_of_its_own_and_does_not_list_it(
    folder: RetentionKeyFolder, tmp_path: Path
) -> None:
    key = folder.create(PERSON)
    folder.create(NAME)
    assert (len(key), folder.create(PERSON), folder.get(PERSON)) == (32, key, key)
    path = tmp_path / "person" / "01" / PERSON.rpartition("/")[2]
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, path.parent.parent)] == [
        0o600,
        0o700,
        0o700,
    ]
    assert folder.names() == [NAME]
    folder.destroy(PERSON)
    folder.destroy(PERSON)
    assert (folder.get(PERSON), path.exists()) == (None, False)
    assert folder.create(PERSON) != key


def test_g7_text_under_two_keys_needs_both(folder: RetentionKeyFolder) -> None:
    names, other = f"{NAME}+{PERSON}", PERSON.replace("/01/", "/02/")
    text = keyring.encrypt("Bern", context=["a place"], retention_key_names=names)
    neighbor = keyring.encrypt("Thun", context=["a place"], retention_key_names=f"{NAME}+{other}")
    token = text.partition(":")[2]
    for wrong in (NAME, f"{NAME}+{other}", f"20261125-60+{PERSON}"):
        get_or_create_key(wrong, cache=None)
        with pytest.raises(Undecryptable):
            keyring.decrypt(f"{wrong}:{token}", context=["a place"])
    assert keyring.decrypt(text, context=["a place"]) == "Bern"
    folder.destroy(PERSON)
    with pytest.raises(KeyUnknown):
        keyring.decrypt(text, context=["a place"])
    assert keyring.decrypt(neighbor, context=["a place"]) == "Thun"
    folder.destroy(NAME)
    with pytest.raises(KeyUnknown):
        keyring.decrypt(neighbor, context=["a place"])


@pytest.mark.parametrize("content", [b"", b"short", b"A" * 44 + b"=" * 8])
def test_damaged_key_is_an_error_and_is_not_replaced(
    folder: RetentionKeyFolder, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / NAME).write_bytes(content)
    for act in (folder.get, folder.create):
        with pytest.raises(KeyMissing):
            act(NAME)
    assert (tmp_path / NAME).read_bytes() == content


def test_unavailable_folder_is_an_error_in_every_method(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    away = RetentionKeyFolder(tmp_path / "a file")
    for act in (away.get, away.create, away.destroy):
        with pytest.raises(KeyMissing):
            act(NAME)
    with pytest.raises(KeyMissing):
        away.names()
    with pytest.raises(KeyMissing):
        RetentionKeyFolder(tmp_path / "nowhere").create(NAME)


def test_a4_folder_without_its_marker_is_an_error_in_every_method(tmp_path: Path) -> None:
    folder = RetentionKeyFolder(tmp_path)
    calls: list[Callable[[], Any]] = [
        *(partial(method, NAME) for method in (folder.get, folder.create, folder.destroy)),
        folder.names,
    ]
    for call in calls:
        with pytest.raises(KeyMissing, match="keys generate"):
            call()
    assert list(tmp_path.iterdir()) == []
    assert prepare_folder(tmp_path)
    results = [call() for call in calls]
    assert (results[0], len(results[1]), results[2:]) == (None, 32, [None, []])


def test_a4_preparation_does_not_change_a_prepared_folder(tmp_path: Path) -> None:
    path = tmp_path / "var" / "keys"
    assert prepare_folder(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    folder = RetentionKeyFolder(path)
    key = folder.create(NAME)
    assert not prepare_folder(path)
    assert (folder.names(), folder.get(NAME)) == ([NAME], key)
    (path / MARKER_NAME).unlink()
    for call in (folder.names, partial(folder.get, NAME)):
        with pytest.raises(KeyMissing):
            call()
    assert prepare_folder(path)
    assert (folder.names(), folder.get(NAME)) == ([NAME], key)


def test_a4_ciphertext_is_not_undecryptable_while_an_empty_folder_is_in_place_of_the_keys(
    settings: Any, tmp_path: Path
) -> None:
    path, away = tmp_path / "keys", tmp_path / "away"
    use_retention_keys(settings, path)
    ciphertext = keyring.encrypt("Bern", context=["a place"], retention_key_names=NAME)
    path.rename(away)
    path.mkdir()
    with pytest.raises(KeyMissing):
        keyring.decrypt(ciphertext, context=["a place"])
    with pytest.raises(KeyMissing):
        keyring.encrypt("Bern", context=["a place"], retention_key_names=HOLD)
    path.rmdir()
    away.rename(path)
    assert keyring.decrypt(ciphertext, context=["a place"]) == "Bern"


def test_retention_key_is_named_by_its_day_and_retention() -> None:
    assert retention_key_name(NOON, timedelta(days=1)) == "20261124-86400"
    assert retention_key_name(NOON, "session") == "20261124-session"
    east = NOON.astimezone(timezone(timedelta(hours=13)))
    assert retention_key_name(east, "session") == "20261124-session", "the same moment"
    assert parse_key_date("20261124-session") == date(2026, 11, 24)
    assert parse_key_date(HOLD) is None


def test_store_is_the_configured_one(settings: Any, tmp_path: Path) -> None:
    declared = settings.PHI_OIDC
    assert not is_enabled()
    with pytest.raises(KeyMissing):
        get_store()
    prepare_folder(tmp_path)
    for values in (tmp_path, RetentionKeyFolder(tmp_path)):
        settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"retention": values})
        assert is_enabled()
        assert get_store().create(NAME) == RetentionKeyFolder(tmp_path).get(NAME)
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"retention": str(tmp_path)})
    with pytest.raises(ImproperlyConfigured, match="retention"):
        get_store()


class VaultStore:
    """A project's store that fails with errors of its own."""

    def __init__(self) -> None:
        self.key: Any = bytes(32)
        self.is_sealed = False

    def get(self, name: str) -> Any:
        if self.is_sealed:
            raise LookupError("a token of the vault")
        return self.key

    create = destroy = get

    def names(self) -> Iterator[str]:
        yield NAME
        self.get(NAME)


def test_a2_any_error_of_a_project_store_is_key_missing_with_its_cause(settings: Any) -> None:
    vault = VaultStore()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": vault})
    store = get_store()
    calls: list[Callable[[], Any]] = [
        *(partial(method, NAME) for method in (store.get, store.create, store.destroy)),
        lambda: list(store.names()),
    ]
    assert [call() for call in calls] == [bytes(32), bytes(32), None, [NAME]]
    vault.is_sealed = True
    for call in calls:
        with pytest.raises(KeyMissing, match="retention") as refused:
            call()
        assert isinstance(refused.value.__cause__, LookupError)
        assert "vault" not in str(refused.value)


@pytest.mark.parametrize("key", [b"", bytes(31), "A" * 32], ids=repr)
def test_a2_invalid_key_of_a_project_store_is_key_missing(settings: Any, key: Any) -> None:
    vault = VaultStore()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": vault})
    store = get_store()
    assert (store.get(NAME), store.create(NAME)) == (bytes(32), bytes(32))
    vault.key = None
    assert store.get(NAME) is None
    vault.key = key
    for method in (store.get, store.create):
        with pytest.raises(KeyMissing):
            method(NAME)


def test_ciphertext_is_decrypted_only_in_its_context_and_while_the_key_exists(
    folder: RetentionKeyFolder,
) -> None:
    sealed = keyring.encrypt("Bern", context=["a place"], retention_key_names=NAME)
    assert sealed.startswith(f"{NAME}:")
    assert keyring.decrypt(sealed, context=["a place"]) == "Bern"
    with pytest.raises(Undecryptable):
        keyring.decrypt(sealed, context=["another place"])
    other = keyring.encrypt("Bern", context=["a place"], retention_key_names=HOLD)
    with pytest.raises(Undecryptable):
        keyring.decrypt(f"{HOLD}:{sealed.partition(':')[2]}", context=["a place"])
    folder.destroy(NAME)
    with pytest.raises(Undecryptable):
        keyring.decrypt(sealed, context=["a place"])
    folder.create(NAME)
    with pytest.raises(Undecryptable):
        keyring.decrypt(sealed, context=["a place"])
    assert keyring.decrypt(other, context=["a place"]) == "Bern"
