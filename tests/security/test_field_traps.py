"""Faults of django-encrypted-model-fields (found in 0.6.5), each shown with its own fields, and absent from our field.

A trap is one function that says what is right, for a column of either. With the library's field it must fail.
"""

import base64
import io
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core import serializers
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.core.management import call_command, find_commands
from django.core.serializers.base import SerializationError
from django.db import DatabaseError, connection, models
from django.db.models import F, Value
from django.db.models.functions import Concat, Upper
from django.forms import modelform_factory
from django.test.utils import CaptureQueriesContext, isolate_apps
from encrypted_model_fields import fields as library

from django_phi_oidc.contrib.key_rotation.encryption_keys import EncryptedColumn, reencrypt
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import Undecryptable
from django_phi_oidc.fields import SealedTextField
from tests.support.encrypted_note_model import CANARY, in_database, notes, opened, table, write
from tests.support.phi_oidc_settings import override_phi_oidc

__all__ = ["notes"]
pytestmark = pytest.mark.django_db(transaction=True)


@dataclass(frozen=True, kw_only=True)
class Side:
    """A column of the library's field, or of our field."""

    notes: Any
    column: str
    other: str
    """Of the same kind."""
    has_key: Callable[[bool], None]
    """Replaces the key that encrypted by another key, or restores it."""
    promote: Callable[[], None]
    """Puts a new key first in the settings."""
    restart: Callable[[], None]
    """Reads the settings as a new process does."""
    reseal: Callable[[], None]
    """Runs the available re-encryption of old rows."""
    drop_old: Callable[[], None]
    """Removes all keys except the new one, and restarts."""
    field: Callable[..., Any]

    def make(self, text: str = CANARY, **values: Any) -> Any:
        note = self.notes.objects.create(**{self.column: text, **values})
        return self.notes.objects.get(pk=note.pk)

    def again(self, note: Any) -> Any:
        return self.notes.objects.get(pk=note.pk)

    def read(self, note: Any, column: str = "") -> Any:
        """Return the value as application code reads it."""
        name = column or self.column
        return opened(note, name) if isinstance(note._meta.get_field(name), SealedTextField) else getattr(note, name)

    def stored(self, note: Any) -> str:
        return in_database(note, self.column)


@contextmanager
def refusing() -> Iterator[None]:
    """Accept a refusal of the block by a clear error."""
    with suppress(Undecryptable, FieldError, ImproperlyConfigured, TypeError, SerializationError):
        yield


def reads_nothing_but(side: Side, note: Any, expected: str | None) -> None:
    """An error is right, and so is the correct value; everything else is wrong."""
    with refusing():
        assert side.read(note) == expected


def missing_key_gives_no_ciphertext(side: Side) -> None:
    note = side.make()
    side.has_key(False)
    reads_nothing_but(side, side.again(note), CANARY)


def missing_key_and_a_save_destroy_nothing(side: Side) -> None:
    note = side.make()
    side.has_key(False)
    side.again(note).save()
    side.has_key(True)
    assert side.read(side.again(note)) == CANARY


def truncated_text_is_no_value(side: Side) -> None:
    note = side.make()
    write(note, side.column, side.stored(note)[:-8])
    reads_nothing_but(side, side.again(note), CANARY)


def plain_text_in_the_column_is_not_genuine(side: Side) -> None:
    note = side.make()
    write(note, side.column, "forged")
    reads_nothing_but(side, side.again(note), CANARY)


def text_of_another_row_does_not_open(side: Side) -> None:
    note, other = side.make("mine"), side.make("yours")
    write(other, side.column, side.stored(note))
    reads_nothing_but(side, side.again(other), "yours")


def text_of_another_column_does_not_open(side: Side) -> None:
    note = side.make(**{side.other: "of the other"})
    write(note, side.column, in_database(note, side.other))
    reads_nothing_but(side, side.again(note), CANARY)


def update_with(expression: Any) -> Callable[[Side], None]:
    def update_seals_no_text_of_sql(side: Side) -> None:
        note = side.make(title="Title")
        with refusing():
            side.notes.objects.filter(pk=note.pk).update(**{side.column: expression})
        assert side.read(side.again(note)) in {CANARY, "Title", "Title!"}

    return update_seals_no_text_of_sql


def bulk_update_destroys_nothing(side: Side) -> None:
    note = side.make()
    setattr(note, side.column, "new")
    with refusing():
        side.notes.objects.bulk_update([note], [side.column])
    assert side.read(side.again(note)) in {CANARY, "new"}


def saving_an_expression_seals_no_text_of_sql(side: Side) -> None:
    with refusing():
        note = side.notes.objects.create(**{side.column: Value("text")})
        assert side.read(side.again(note)) == "text"


def assignment_is_no_way_to_open_a_ciphertext(side: Side) -> None:
    note = side.make()
    attack = side.notes(**{side.column: side.stored(note)})
    attack.full_clean()
    attack.save()
    assert side.read(side.again(attack)) == side.stored(note)


def cleaning_of_a_form_is_no_way_to_open_a_ciphertext(side: Side) -> None:
    note = side.make()
    with refusing():
        form = modelform_factory(side.notes, fields=[side.column])({side.column: side.stored(note)})
        assert form.is_valid()
        assert side.read(form.instance) != CANARY


def lookup(**given: Any) -> Callable[[Side], None]:
    def lookup_finds_the_row_or_is_refused(side: Side) -> None:
        note = side.make()
        (suffix, value) = next(iter(given.items()))
        with refusing():
            actual = side.notes.objects.filter(**{f"{side.column}__{suffix}": value})
            assert list(actual) == [note]

    return lookup_finds_the_row_or_is_refused


def exclude_leaves_the_row_out_or_is_refused(side: Side) -> None:
    side.make()
    with refusing():
        assert not side.notes.objects.exclude(**{side.column: CANARY}).exists()


def lookup_sends_no_plain_text_to_the_database(side: Side) -> None:
    side.make()
    with CaptureQueriesContext(connection) as captured, refusing():
        side.notes.objects.filter(**{side.column: CANARY}).exists()
    assert CANARY not in str(captured.captured_queries)


def get_or_create_makes_no_twins(side: Side) -> None:
    with refusing():
        for _ in range(2):
            side.notes.objects.get_or_create(**{side.column: CANARY})
        assert side.notes.objects.count() == 1


def unique_lets_no_twins_in(side: Side) -> None:
    with refusing(), isolate_apps("django_phi_oidc"):

        class Unique(models.Model):  # noqa: DJ008
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            text: Any = side.field(unique=True)

            class Meta:
                app_label = "django_phi_oidc"

        with table(Unique):
            for _ in range(2):
                Unique.objects.create(text=CANARY)
            assert Unique.objects.count() == 1


def unique_with_others_lets_no_twins_in(side: Side) -> None:
    with refusing(), isolate_apps("django_phi_oidc"):

        class UniqueTogether(models.Model):  # noqa: DJ008
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            person = models.IntegerField()
            text: Any = side.field()

            class Meta:
                app_label = "django_phi_oidc"
                constraints = (models.UniqueConstraint(fields=["person", "text"], name="unique_together"),)

        with table(UniqueTogether):
            for _ in range(2):
                UniqueTogether.objects.create(person=1, text=CANARY)
            assert UniqueTogether.objects.count() == 1


def ordering(by: Callable[[str], Any], *, is_reversed: bool = False) -> Callable[[Side], None]:
    def ordering_is_that_of_the_values_or_is_refused(side: Side) -> None:
        texts = [f"text {n:02}" for n in range(30)]
        for text in texts:
            side.make(text)
        with refusing():
            actual = [side.read(note) for note in side.notes.objects.order_by(by(side.column))]
            assert actual == (texts[::-1] if is_reversed else texts)

    return ordering_is_that_of_the_values_or_is_refused


def ordering_by_default_is_that_of_the_values_or_is_refused(side: Side) -> None:
    with refusing(), isolate_apps("django_phi_oidc"):

        class Ordered(models.Model):  # noqa: DJ008
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            text: Any = side.field()

            class Meta:
                app_label = "django_phi_oidc"
                ordering = ("-text",)

        with table(Ordered):
            texts = [Ordered.objects.create(text=f"text {n:02}").pk for n in range(30)]
            assert [row.pk for row in Ordered.objects.all()] == texts[::-1]


def a_function_of_the_database_is_over_the_value_or_refused(side: Side) -> None:
    side.make()
    with refusing(), suppress(DatabaseError):
        actual = side.notes.objects.annotate(upper=Upper(side.column)).values_list("upper", flat=True)
        assert list(actual) == [CANARY.upper()]


def comparing_with_another_column_is_over_the_value_or_refused(side: Side) -> None:
    note = side.make(title=CANARY)
    with refusing():
        assert list(side.notes.objects.filter(title=F(side.column))) == [note]


def copying_to_another_column_copies_the_value_or_is_refused(side: Side) -> None:
    note = side.make(title="before")
    with refusing():
        side.notes.objects.update(title=F(side.column))
    assert side.again(note).title in {"before", CANARY}


def keys_are_read_when_they_are_used(side: Side) -> None:
    note = side.make()
    side.promote()
    note = side.again(note)
    setattr(note, side.column, "new")
    note.save()
    side.drop_old()
    assert side.read(side.again(note)) == "new"


def a_text_names_its_key(side: Side) -> None:
    first = side.stored(side.make())
    side.promote()
    side.restart()
    second = side.stored(side.make())
    names = {text.partition(":")[0] for text in (first, second)}
    assert len(names) == 2
    assert max(map(len, names)) < 20


def old_rows_come_under_a_new_key(side: Side) -> None:
    note = side.make()
    side.promote()
    side.restart()
    side.reseal()
    side.drop_old()
    assert side.read(side.again(note)) == CANARY


def serializing(form: str) -> Callable[[Side], None]:
    def serializers_write_no_plain_text(side: Side) -> None:
        note, written = side.make(), io.StringIO()
        with refusing():
            serializers.serialize(form, [note], stream=written, fields=[side.column])
        assert CANARY not in written.getvalue()

    return serializers_write_no_plain_text


def the_text_does_not_tell_when_it_was_written(side: Side) -> None:
    token = side.stored(side.make()).rpartition(":")[2]
    # Fernet: a version byte, then eight bytes of time, unencrypted.
    assert base64.urlsafe_b64decode(token)[1:9] == bytes(8)


def values_and_repr_show_no_plain_text(side: Side) -> None:
    note = side.make()
    for displayed in (
        vars(note)[side.column],
        side.notes.objects.values(side.column).get(),
        side.notes.objects.values_list(side.column).get(),
        side.notes.objects.annotate(again=F(side.column)).get().again,
    ):
        assert CANARY not in f"{displayed} {displayed!r}"


TRAPS: dict[str, Callable[[Side], None]] = {
    "missing key: the ciphertext is the value": missing_key_gives_no_ciphertext,
    "missing key: sealed again at the next save": missing_key_and_a_save_destroy_nothing,
    "truncated: the rest is the value": truncated_text_is_no_value,
    "plain text is genuine": plain_text_in_the_column_is_not_genuine,
    "moved to another row": text_of_another_row_does_not_open,
    "moved to another column": text_of_another_column_does_not_open,
    "update(F)": update_with(F("title")),
    "update(Concat)": update_with(Concat(F("title"), Value("!"))),
    "bulk_update": bulk_update_destroys_nothing,
    "save(Value)": saving_an_expression_seals_no_text_of_sql,
    "assignment opens": assignment_is_no_way_to_open_a_ciphertext,
    "form cleaning opens": cleaning_of_a_form_is_no_way_to_open_a_ciphertext,
    "exact": lookup(exact=CANARY),
    "in": lookup(**{"in": [CANARY]}),
    "contains": lookup(contains="canary"),
    "startswith": lookup(startswith="plain"),
    "exclude": exclude_leaves_the_row_out_or_is_refused,
    "a lookup sends plain text": lookup_sends_no_plain_text_to_the_database,
    "get_or_create": get_or_create_makes_no_twins,
    "unique": unique_lets_no_twins_in,
    "UniqueConstraint": unique_with_others_lets_no_twins_in,
    "order_by": ordering(lambda column: column),
    "order_by, descending": ordering(lambda column: f"-{column}", is_reversed=True),
    "order_by(F)": ordering(lambda column: F(column).asc()),
    "Meta.ordering": ordering_by_default_is_that_of_the_values_or_is_refused,
    "Upper": a_function_of_the_database_is_over_the_value_or_refused,
    "filter(title=F)": comparing_with_another_column_is_over_the_value_or_refused,
    "update(title=F)": copying_to_another_column_copies_the_value_or_is_refused,
    "keys are read at import": keys_are_read_when_they_are_used,
    "no key id": a_text_names_its_key,
    "no way to re-encrypt": old_rows_come_under_a_new_key,
    "serialize to JSON": serializing("json"),
    "serialize to JSON lines": serializing("jsonl"),
    "serialize to XML": serializing("xml"),
    "the time of writing": the_text_does_not_tell_when_it_was_written,
    "shown in clear": values_and_repr_show_no_plain_text,
}


@pytest.fixture
def library_side(notes: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Side:
    """Return the library's side: a key in a setting that it reads at import, and its commands."""
    old, new = Fernet.generate_key(), Fernet.generate_key()

    def start(*keys: bytes) -> None:
        settings.FIELD_ENCRYPTION_KEY = list(keys)
        monkeypatch.setattr(library, "CRYPTER", library.get_crypter())

    start(old)
    commands = find_commands(str(Path(library.__file__).with_name("management")))
    return Side(
        notes=notes,
        column="library_text",
        other="library_text_2",
        has_key=lambda has: start(old if has else new),
        promote=lambda: setattr(settings, "FIELD_ENCRYPTION_KEY", [new, old]),
        restart=lambda: start(*settings.FIELD_ENCRYPTION_KEY),
        reseal=lambda: [call_command(command) for command in commands if "rotate" in command] and None,
        drop_old=lambda: start(new),
        field=library.EncryptedTextField,
    )


@pytest.fixture
def own_side(notes: Any, settings: Any) -> Side:
    """Return our side."""
    old, new = keyring.generate_key(), keyring.generate_key()

    def configure(*keys: str) -> None:
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": list(keys)})

    configure(old)
    column = EncryptedColumn("default", notes._meta.get_field("own_text"))
    return Side(
        notes=notes,
        column="own_text",
        other="other",
        has_key=lambda has: configure(old if has else new),
        promote=lambda: configure(new, old),
        restart=lambda: None,
        reseal=lambda: reencrypt(column, keys=keyring.get_keys("encryption")) and None,
        drop_old=lambda: configure(new),
        field=partial(SealedTextField, bind=("id",)),
    )


def fault(trap: str, side: Side) -> str:
    """Return what the trap found, or nothing."""
    try:
        TRAPS[trap](side)
    except AssertionError as found:
        return str(found) or "unnamed"
    return ""


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_affects_the_library(trap: str, library_side: Side) -> None:
    assert fault(trap, library_side) != ""


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_does_not_affect_our_field(trap: str, own_side: Side) -> None:
    assert fault(trap, own_side) == ""


@pytest.mark.postgresql
def test_a_number_is_an_error_with_the_library_and_psycopg_3_and_json_text_with_ours(notes: Any) -> None:
    with pytest.raises(KeyError):
        notes.objects.create(number=42)
    note = notes.objects.create(own_text=json.dumps(42))
    assert json.loads(opened(notes.objects.get(pk=note.pk)) or "") == 42


@pytest.mark.sqlite
def test_an_instant_is_shifted_by_the_library_and_kept_by_ours(notes: Any, settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Zurich"
    instant = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    note = notes.objects.create(instant=instant, own_text=instant.isoformat())
    note = notes.objects.get(pk=note.pk)
    assert note.instant != instant
    assert datetime.fromisoformat(opened(note) or "") == instant
