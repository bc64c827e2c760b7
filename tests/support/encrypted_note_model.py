"""A table with fields of django-encrypted-model-fields next to our own, as the fixture `notes`."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet
from django.db import connection, models
from django.test.utils import isolate_apps
from encrypted_model_fields import fields as library

from django_phi_oidc.crypto import keyring
from django_phi_oidc.fields import SealedTextField
from tests.support.phi_oidc_settings import override_phi_oidc

CANARY = "plain-text-canary"


@contextmanager
def table(model: type[models.Model]) -> Iterator[None]:
    """Create the model's table for the block."""
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Any]:
    """Return the model with its table; the library has a key."""
    monkeypatch.setattr(library, "CRYPTER", MultiFernet([Fernet(Fernet.generate_key())]))
    with isolate_apps("django_phi_oidc"):

        class Note(models.Model):  # noqa: DJ008
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            title = models.CharField(max_length=500, blank=True)
            library_text = library.EncryptedTextField(null=True, blank=True)
            library_text_2 = library.EncryptedTextField(null=True, blank=True)
            number = library.EncryptedIntegerField(null=True, blank=True)
            instant = library.EncryptedDateTimeField(null=True, blank=True)
            own_text = SealedTextField(bind=("id",), null=True)
            other = SealedTextField(bind=("id",), null=True)
            about = SealedTextField(bind=("id", "title"), null=True)

            class Meta:
                app_label = "django_phi_oidc"
                db_table = "tests_note"

        with table(Note):
            yield Note


def make(notes: Any, text: str = CANARY, **values: Any) -> Any:
    """Create a row with that text in our field and return it."""
    return notes.objects.get(pk=notes.objects.create(own_text=text, **values).pk)


def again(note: Any) -> Any:
    """Return the row as stored in the database."""
    return type(note).objects.get(pk=note.pk)


def opened(note: Any, name: str = "own_text") -> str | None:
    """Return the plaintext of our field of that name."""
    return note._meta.get_field(name).decrypt(note)  # type: ignore[no-any-return]


def in_database(note: Any, column: str) -> str:
    """Return the stored text of that column, read without a model."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM tests_note WHERE id = %s", [_key(note)])
        return str(cursor.fetchone()[0])


def write(note: Any, column: str, text: str) -> None:
    """Store text in that column of the row without a model."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE tests_note SET {column} = %s WHERE id = %s", [text, _key(note)])


def _key(note: Any) -> Any:
    return note._meta.pk.get_db_prep_value(note.pk, connection)


def replace_key(note: Any, settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [keyring.generate_key()]})


def wrong_key(note: Any, settings: Any) -> None:
    replace_key(note, settings)
    write(
        note,
        "own_text",
        f"{keyring.get_keys('encryption')[0].id}:{in_database(note, 'own_text').partition(':')[2]}",
    )


def swap_rows(note: Any, settings: Any) -> None:
    other = make(type(note), "of another")
    own, foreign = in_database(note, "own_text"), in_database(other, "own_text")
    write(note, "own_text", foreign)
    write(other, "own_text", own)


def swap_columns(note: Any, settings: Any) -> None:
    note.other = CANARY
    note.save()
    write(note, "own_text", in_database(note, "other"))


def write_as(form: Callable[[str], str]) -> Callable[[Any, Any], None]:
    return lambda note, settings: write(note, "own_text", form(in_database(note, "own_text")))


DAMAGES: dict[str, Callable[[Any, Any], None]] = {
    "missing key": replace_key,
    "wrong key": wrong_key,
    "swapped rows": swap_rows,
    "another column's": swap_columns,
    "truncated": write_as(lambda text: text[:-8]),
    "cut to its key's id": write_as(lambda text: text[:9]),
    "plain text": write_as(lambda text: "forged"),
    "empty": write_as(lambda text: ""),
}
"""Changes that make the text of a row's field undecryptable."""
