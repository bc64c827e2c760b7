"""What django-encrypted-model-fields does wrong, shown on its own field, and that ours does not."""

import base64
import io
import json
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet
from django.core import serializers
from django.core.exceptions import FieldError, ImproperlyConfigured, ValidationError
from django.core.serializers.base import DeserializationError
from django.db import connection, models
from django.db.models import F, Q, Value
from django.db.models.functions import Concat
from django.forms import modelform_factory
from django.test.utils import isolate_apps
from encrypted_model_fields import fields as library

from django_phi_oidc import keyring
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.errors import Undecryptable
from django_phi_oidc.fields import MASK, Sealed, SealedTextField

pytestmark = pytest.mark.django_db(transaction=True)
CANARY = "plain-text-canary"
Note: Any = None


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[None]:
    """Make a table with the library's field and ours side by side, and give the library a key."""
    monkeypatch.setattr(library, "CRYPTER", MultiFernet([Fernet(Fernet.generate_key())]))
    with isolate_apps("django_phi_oidc"):

        class NoteModel(models.Model):  # noqa: DJ008
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            title = models.CharField(max_length=100, blank=True)
            theirs = library.EncryptedTextField(null=True)
            ours = SealedTextField(bind=("id",), null=True)
            other = SealedTextField(bind=("id",), null=True)

            class Meta:
                app_label = "django_phi_oidc"
                db_table = "tests_note"

        monkeypatch.setattr(sys.modules[__name__], "Note", NoteModel)
        with connection.schema_editor() as editor:
            editor.create_model(NoteModel)
        yield
        with connection.schema_editor() as editor:
            editor.delete_model(NoteModel)


def opened(note: Any, name: str = "ours") -> str | None:
    return note._meta.get_field(name).open(note)  # type: ignore[no-any-return]


def make(text: str = CANARY) -> Any:
    note = Note.objects.create(theirs=text, ours=text)
    return Note.objects.get(pk=note.pk)


def in_database(column: str, pk: uuid.UUID) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {column} FROM tests_note WHERE id = %s", [Note._meta.pk.get_db_prep_value(pk, connection)]
        )
        return str(cursor.fetchone()[0])


def write_in_database(column: str, pk: uuid.UUID, text: str) -> None:
    with connection.cursor() as cursor:
        key = Note._meta.pk.get_db_prep_value(pk, connection)
        cursor.execute(f"UPDATE tests_note SET {column} = %s WHERE id = %s", [text, key])


def test_open_of_what_was_saved_gives_it_back() -> None:
    note = make("ünï\x00cødé " * 100)
    assert opened(note) == "ünï\x00cødé " * 100
    assert opened(note, "other") is None


def test_without_the_key_the_library_gives_ciphertext_and_seals_it_again_while_ours_raises(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = make()
    theirs_before, ours_before = (in_database(column, note.pk) for column in ("theirs", "ours"))
    monkeypatch.setattr(library, "CRYPTER", MultiFernet([Fernet(Fernet.generate_key())]))
    kept = settings.PHI_OIDC
    settings.PHI_OIDC = {**kept, "ENCRYPTION_KEYS": [keyring.generate()]}
    again = Note.objects.get(pk=note.pk)
    assert again.theirs == theirs_before
    with pytest.raises(Undecryptable):
        opened(again)
    again.save()
    assert in_database("theirs", note.pk) != theirs_before
    assert in_database("ours", note.pk) == ours_before
    settings.PHI_OIDC = kept
    assert opened(Note.objects.get(pk=note.pk)) == CANARY


def test_plain_text_in_the_column_is_genuine_to_the_library_and_raises_with_ours() -> None:
    note = make()
    for column in ("theirs", "ours"):
        write_in_database(column, note.pk, "forged")
    forged = Note.objects.get(pk=note.pk)
    assert forged.theirs == "forged"
    with pytest.raises(Undecryptable):
        opened(forged)


def test_a_ciphertext_moved_to_another_row_opens_with_the_library_and_raises_with_ours() -> None:
    note, other = make("mine"), make("yours")
    for column in ("theirs", "ours"):
        write_in_database(column, other.pk, in_database(column, note.pk))
    moved = Note.objects.get(pk=other.pk)
    assert moved.theirs == "mine"
    with pytest.raises(Undecryptable):
        opened(moved)
    assert opened(Note.objects.get(pk=note.pk)) == "mine"


def test_a_ciphertext_moved_to_another_column_raises() -> None:
    note = make()
    write_in_database("other", note.pk, in_database("ours", note.pk))
    moved = Note.objects.get(pk=note.pk)
    assert opened(moved) == CANARY
    with pytest.raises(Undecryptable):
        opened(moved, "other")


@pytest.mark.parametrize(
    "expression", [F("title"), Value("text"), Concat(F("title"), Value("!"))], ids=["F", "Value", "Concat"]
)
def test_update_with_an_expression_seals_its_text_with_the_library_and_is_refused_by_ours(expression: Any) -> None:
    note = make()
    Note.objects.filter(pk=note.pk).update(theirs=expression)
    assert Note.objects.get(pk=note.pk).theirs != CANARY
    assert "(" in Note.objects.get(pk=note.pk).theirs
    with pytest.raises(FieldError):
        Note.objects.filter(pk=note.pk).update(ours=expression)
    assert opened(Note.objects.get(pk=note.pk)) == CANARY


def test_update_with_plain_text_is_refused_by_ours() -> None:
    note = make()
    with pytest.raises(FieldError):
        Note.objects.filter(pk=note.pk).update(ours="new")
    assert opened(Note.objects.get(pk=note.pk)) == CANARY
    Note.objects.filter(pk=note.pk).update(ours=None)
    assert opened(Note.objects.get(pk=note.pk)) is None


def test_bulk_update_destroys_with_the_library_and_is_refused_by_ours() -> None:
    note = make()
    note.theirs = note.ours = "new"
    Note.objects.bulk_update([note], ["theirs"])
    assert "CASE" in Note.objects.get(pk=note.pk).theirs.upper()
    with pytest.raises(FieldError):
        Note.objects.bulk_update([note], ["ours"])
    assert opened(Note.objects.get(pk=note.pk)) == CANARY
    note.save()
    assert opened(Note.objects.get(pk=note.pk)) == "new"


@pytest.mark.parametrize("save", ["save", "create", "bulk_create"])
def test_saving_an_expression_is_refused_by_ours(save: str) -> None:
    given = {"ours": F("title")}
    doors: dict[str, Any] = {
        "save": lambda: Note(**given).save(),
        "create": lambda: Note.objects.create(**given),
        "bulk_create": lambda: Note.objects.bulk_create([Note(**given)]),
    }
    with pytest.raises(TypeError):
        doors[save]()
    assert not Note.objects.exists()


def test_assigning_a_ciphertext_opens_it_with_the_library_and_is_plain_text_to_ours() -> None:
    note = make()
    attack = Note(theirs=in_database("theirs", note.pk), ours=in_database("ours", note.pk))
    attack.full_clean()
    assert attack.theirs == CANARY
    assert attack.ours == in_database("ours", note.pk)
    attack.save()
    assert opened(Note.objects.get(pk=attack.pk)) == in_database("ours", note.pk)


def test_form_cleaning_opens_a_ciphertext_with_the_library_and_ours_is_in_no_form() -> None:
    note = make()
    form = modelform_factory(Note, fields=["theirs"])({"theirs": in_database("theirs", note.pk)})
    assert form.is_valid()
    assert form.instance.theirs == CANARY
    assert "ours" not in modelform_factory(Note, fields="__all__").base_fields
    with pytest.raises(FieldError):
        modelform_factory(Note, fields=["ours"])


LOOKUPS: dict[str, Any] = {
    "exact": {"": CANARY},
    "None": {"": None},
    "in": {"__in": [CANARY]},
    "contains": {"__contains": CANARY},
    "startswith": {"__startswith": CANARY},
    "gt": {"__gt": CANARY},
    "regex": {"__regex": CANARY},
    "length": {"__length": 5},
    "a mistyped one": {"__nonsense": CANARY},
}


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
@pytest.mark.parametrize("door", ["filter", "exclude", "get"])
def test_lookups_by_value_are_refused_by_ours(lookup: dict[str, Any], door: str) -> None:
    make()
    with pytest.raises(FieldError):
        getattr(Note.objects, door)(**{f"ours{suffix}": value for suffix, value in lookup.items()})


def test_a_lookup_by_value_finds_nothing_with_the_library_and_is_refused_by_ours() -> None:
    make()
    assert not Note.objects.filter(theirs=CANARY).exists()
    with pytest.raises(FieldError):
        Note.objects.filter(ours=CANARY)


def test_isnull_is_the_one_lookup_of_ours() -> None:
    note = make()
    assert Note.objects.filter(ours__isnull=False, other__isnull=True).get() == note
    assert not Note.objects.filter(Q(ours__isnull=True) | Q(other__isnull=False)).exists()


def test_get_or_create_by_value_makes_twins_with_the_library_and_is_refused_by_ours() -> None:
    assert [Note.objects.get_or_create(theirs=CANARY)[1] for _ in range(2)] == [True, True]
    with pytest.raises(FieldError):
        Note.objects.get_or_create(ours=CANARY)


def test_update_or_create_by_the_natural_key_seals_anew() -> None:
    key = uuid.uuid4()
    for text in ("first", "second"):
        Note.objects.update_or_create(id=key, defaults={"ours": text})
        assert opened(Note.objects.get(pk=key)) == text


OPTIONS: dict[str, Any] = {
    "unique": True,
    "primary_key": True,
    "db_index": True,
    "choices": [("a", "A")],
    "default": "a",
    "db_default": "a",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_would_act_on_ciphertext_is_taken_by_the_library_and_refused_by_ours(option: str) -> None:
    assert library.EncryptedTextField(**{option: OPTIONS[option]})
    assert SealedTextField(bind=("id",))
    with pytest.raises(ImproperlyConfigured, match=option):
        SealedTextField(bind=("id",), **{option: OPTIONS[option]})


def test_keys_are_read_at_import_by_the_library_and_live_by_ours(settings: Any) -> None:
    note = make()
    kept = settings.PHI_OIDC
    settings.FIELD_ENCRYPTION_KEY = Fernet.generate_key()
    settings.PHI_OIDC = {**kept, "ENCRYPTION_KEYS": [keyring.generate(), *kept["ENCRYPTION_KEYS"]]}
    newest = keyring.keys("ENCRYPTION_KEYS")[0].id
    note.theirs, note.ours = "new", "new"
    note.save()
    assert note.ours.key_id == newest
    with pytest.raises(library.cryptography.fernet.InvalidToken):
        Fernet(settings.FIELD_ENCRYPTION_KEY).decrypt(in_database("theirs", note.pk).encode())
    assert opened(Note.objects.get(pk=note.pk)) == "new"


def test_a_token_of_the_library_tells_its_time_and_ours_does_not() -> None:
    note = make()
    theirs, ours = in_database("theirs", note.pk), in_database("ours", note.pk).partition(":")[2]
    # Fernet: version, then eight bytes of time, in clear.
    times = [int.from_bytes(base64.urlsafe_b64decode(token)[1:9], "big") for token in (theirs, ours)]
    assert abs(times[0] - time.time()) < 60
    assert times[1] == 0


def test_the_library_shows_plain_text_everywhere_and_ours_the_mask() -> None:
    note = make()
    assert Note.objects.values_list("theirs", flat=True).get() == CANARY
    for shown in (
        note.ours,
        Note.objects.values("ours").get(),
        Note.objects.values_list("ours").get(),
        Note.objects.annotate(again=F("ours")).get().again,
        vars(note)["ours"],
        f"{note.ours} {note.ours!r}",
    ):
        assert MASK in repr(shown)
        assert CANARY not in repr(shown)
    with pytest.raises(TypeError):
        json.dumps(note.ours)


def test_dumpdata_writes_plain_text_of_the_library_and_the_mask_of_ours_which_can_not_be_loaded() -> None:
    note = make()
    dumped = serializers.serialize("json", [note])
    ((fields),) = [each["fields"] for each in json.loads(dumped)]
    assert fields["theirs"] == CANARY
    assert (fields["ours"], fields["other"]) == (MASK, None)
    claim = {"model": "django_phi_oidc.storedclaim", "pk": 1, "fields": {"name": "x", "value": MASK}}
    with pytest.raises(DeserializationError):
        list(serializers.deserialize("json", io.StringIO(json.dumps([claim]))))


def test_a_fixture_with_plain_text_is_refused() -> None:
    note = make()
    note.ours = CANARY
    with pytest.raises(FieldError):
        note.save_base(raw=True)


@pytest.mark.parametrize("door", ["save", "full_clean"])
def test_the_mask_is_never_taken_for_the_value(door: str) -> None:
    note = make()
    note.ours = str(note.ours)
    with pytest.raises(ValidationError):
        getattr(note, door)()
    assert opened(Note.objects.get(pk=note.pk)) == CANARY


@pytest.mark.parametrize("value", [5, b"bytes", True, ["list"], {"a": 1}, object()], ids=type)
def test_saving_anything_but_text_is_refused(value: Any) -> None:
    assert opened(make("5")) == "5"
    with pytest.raises(TypeError):
        Note.objects.create(ours=value)


def test_a_natural_key_in_another_spelling_seals_under_the_one_that_the_database_gives_back() -> None:
    key = uuid.uuid4()
    for spelling in (key.hex, str(key).upper(), "{" + str(key) + "}"):
        Note(id=spelling, ours=CANARY).save()
        assert opened(Note.objects.get(pk=key)) == CANARY
        Note.objects.all().delete()


def test_a_row_without_its_natural_key_is_not_sealed() -> None:
    field = Note._meta.get_field("ours")
    assert isinstance(field.pre_save(Note(ours=CANARY), True), Sealed)
    with pytest.raises(TypeError, match="bound"):
        field.pre_save(Note(id=None, ours=CANARY), True)


def test_values_survive_bulk_create_upsert_defer_only_and_save_of_other_columns() -> None:
    notes = [Note(ours=str(n)) for n in range(3)]
    Note.objects.bulk_create(notes)
    again = [Note(pk=note.pk, ours=f"new {n}") for n, note in enumerate(notes)]
    Note.objects.bulk_create(again, update_conflicts=True, unique_fields=["id"], update_fields=["ours"])
    for n, note in enumerate(notes):
        for found in (
            Note.objects.get(pk=note.pk),
            Note.objects.defer("ours").get(pk=note.pk),
            Note.objects.only("ours").get(pk=note.pk),
        ):
            assert opened(found) == f"new {n}"
            found.title = "changed"
            found.save()
    assert [opened(Note.objects.get(pk=note.pk)) for note in notes] == ["new 0", "new 1", "new 2"]


def test_an_unsaved_value_opens_and_a_saved_one_is_sealed_in_the_instance() -> None:
    note = Note(ours=CANARY)
    assert opened(note) == CANARY
    note.save()
    assert isinstance(note.ours, Sealed)
    assert CANARY not in repr(vars(note))
    assert opened(note) == CANARY


def test_deconstruct_gives_what_a_migration_can_make_again() -> None:
    field: Any = StoredClaim._meta.get_field("value")
    name, path, args, kwargs = field.deconstruct()
    assert (name, path, args) == ("value", "django_phi_oidc.fields.SealedTextField", [])
    assert SealedTextField(*args, **kwargs).deconstruct()[3] == kwargs == {"bind": ("subject_id", "session", "name")}
