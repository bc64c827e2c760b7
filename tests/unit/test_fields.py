"""What `SealedTextField` does and refuses; test_field_traps.py compares it with the library's field."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import FieldError, ImproperlyConfigured, ValidationError
from django.db import DatabaseError, models
from django.db.models import Case, Count, Exists, F, Max, OuterRef, Q, Subquery, Value, When, Window
from django.db.models.functions import Coalesce, Concat, Length, RowNumber
from django.test.utils import isolate_apps

from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.errors import CiphertextInvalid, KeySourceUnavailable, KeyUnknown, Undecryptable
from django_phi_oidc.fields import EncryptedText, SealedTextField
from tests.support.claims_fixtures import Person
from tests.support.encrypted_note_model import CANARY, DAMAGES, again, in_database, make, notes, opened
from tests.support.phi_oidc_settings import override_phi_oidc

__all__ = ["notes"]
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def test_decrypt_returns_the_saved_text(notes: Any) -> None:
    note = make(notes, "ünï\x00cødé " * 100)
    assert opened(note) == "ünï\x00cødé " * 100
    assert opened(note, "other") is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_undecryptable_text_raises_and_is_kept_by_every_save(notes: Any, settings: Any, damage: str) -> None:
    note = make(notes)
    assert opened(again(note)) == CANARY
    DAMAGES[damage](note, settings)
    before = in_database(note, "own_text")
    row = again(note)
    with pytest.raises(KeyUnknown if damage == "missing key" else CiphertextInvalid) as raised:
        opened(row)
    assert isinstance(raised.value, Undecryptable)
    row.title = "changed"
    row.save()
    again(note).save(update_fields=["own_text"])
    notes.objects.bulk_create([again(note)], update_conflicts=True, unique_fields=["id"], update_fields=["own_text"])
    assert (in_database(note, "own_text"), again(note).title) == (before, "changed")


def test_unavailable_key_source_raises_key_source_unavailable(notes: Any, settings: Any, tmp_path: Path) -> None:
    note = make(notes)
    assert opened(again(note)) == CANARY
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": tmp_path / "absent"})
    with pytest.raises(KeySourceUnavailable, match="the key file can't be read") as raised:
        opened(again(note))
    assert raised.value.code == "key_missing"


def test_swapped_claims_raise_and_are_kept_by_saves() -> None:
    person = Person()
    person.store({"birthdate": "1984-03-09", "address": {"locality": "Stockholm"}})
    first, second = StoredClaim.objects.order_by("name")
    swapped = {first.pk: second.value, second.pk: first.value}
    for claim in (first, second):
        claim.value = swapped[claim.pk]
        claim.save()
    for claim in StoredClaim.objects.all():
        with pytest.raises(Undecryptable):
            opened(claim, "value")
        claim.save()
        assert again(claim).value.ciphertext == swapped[claim.pk].ciphertext
    for claim in (first, second):
        claim.value = swapped[second.pk if claim is first else first.pk]
        claim.save()
    held = {claim.name: json.loads(opened(claim, "value") or "") for claim in StoredClaim.objects.all()}
    assert held == {"birthdate": "1984-03-09", "address": {"locality": "Stockholm"}}


def test_text_is_undecryptable_after_its_natural_key_changes(notes: Any) -> None:
    note = notes.objects.create(title="birthdate", about=CANARY)
    notes.objects.filter(pk=note.pk).update(title="address")
    with pytest.raises(Undecryptable):
        opened(again(note), "about")
    notes.objects.filter(pk=note.pk).update(title="birthdate")
    assert opened(again(note), "about") == CANARY


EXPRESSIONS: dict[str, Any] = {
    "F": F("title"),
    "Value": Value("text"),
    "Concat": Concat(F("title"), Value("!")),
    "plain text": "new",
}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_update_is_refused_except_with_none(notes: Any, expression: Any) -> None:
    note = make(notes)
    with pytest.raises(FieldError, match="assign it and save"):
        notes.objects.filter(pk=note.pk).update(own_text=expression)
    assert opened(again(note)) == CANARY
    notes.objects.filter(pk=note.pk).update(own_text=None)
    assert opened(again(note)) is None


def test_bulk_update_is_refused_and_save_is_not(notes: Any) -> None:
    note = make(notes)
    note.own_text = "new"
    with pytest.raises(FieldError):
        notes.objects.bulk_update([note], ["own_text"])
    assert opened(again(note)) == CANARY
    note.save()
    assert opened(again(note)) == "new"


@pytest.mark.parametrize("save", ["save", "create", "bulk_create"])
def test_saving_an_expression_is_refused(notes: Any, save: str) -> None:
    values = {"own_text": F("title")}
    doors: dict[str, Any] = {
        "save": lambda: notes(**values).save(),
        "create": lambda: notes.objects.create(**values),
        "bulk_create": lambda: notes.objects.bulk_create([notes(**values)]),
    }
    with pytest.raises(TypeError):
        doors[save]()
    assert not notes.objects.exists()


@pytest.mark.parametrize("value", [5, b"bytes", True, ["list"], {"a": 1}, object()], ids=type)
def test_saving_anything_but_text_is_refused(notes: Any, value: Any) -> None:
    assert opened(make(notes, "5")) == "5"
    with pytest.raises(TypeError):
        notes.objects.create(own_text=value)


def test_update_or_create_by_the_natural_key_encrypts_again(notes: Any) -> None:
    key = uuid.uuid4()
    for text in ("first", "second"):
        notes.objects.update_or_create(id=key, defaults={"own_text": text})
        assert opened(notes.objects.get(pk=key)) == text


def test_natural_key_is_normalized_before_encryption(notes: Any) -> None:
    key = uuid.uuid4()
    for spelling in (key.hex, str(key).upper(), "{" + str(key) + "}"):
        notes(id=spelling, own_text=CANARY).save()
        assert opened(notes.objects.get(pk=key)) == CANARY
        notes.objects.all().delete()


def test_row_without_its_natural_key_is_refused(notes: Any) -> None:
    field = notes._meta.get_field("own_text")
    assert isinstance(field.pre_save(notes(own_text=CANARY), True), EncryptedText)
    with pytest.raises(TypeError, match="bound"):
        field.pre_save(notes(id=None, own_text=CANARY), True)


def test_values_survive_bulk_create_upsert_defer_only_and_save_of_other_columns(notes: Any) -> None:
    created = notes.objects.bulk_create(notes(own_text=str(n)) for n in range(3))
    changed = [notes(pk=note.pk, own_text=f"new {n}") for n, note in enumerate(created)]
    notes.objects.bulk_create(changed, update_conflicts=True, unique_fields=["id"], update_fields=["own_text"])
    for n, note in enumerate(created):
        for actual in (
            notes.objects.get(pk=note.pk),
            notes.objects.defer("own_text").get(pk=note.pk),
            notes.objects.only("own_text").get(pk=note.pk),
        ):
            assert opened(actual) == f"new {n}"
            actual.title = "changed"
            actual.save()
    assert [opened(notes.objects.get(pk=note.pk)) for note in created] == ["new 0", "new 1", "new 2"]


def test_unsaved_value_is_plain_and_a_saved_one_is_encrypted_in_the_instance(notes: Any) -> None:
    note = notes(own_text=CANARY)
    assert opened(note) == CANARY
    note.save()
    assert isinstance(note.own_text, EncryptedText)
    assert CANARY not in repr(vars(note))
    assert opened(note) == CANARY


@pytest.mark.parametrize("door", ["save", "full_clean"])
def test_mask_is_never_saved_as_the_value(notes: Any, door: str) -> None:
    note = make(notes)
    note.own_text = str(note.own_text)
    with pytest.raises(ValidationError):
        getattr(note, door)()
    assert opened(again(note)) == CANARY


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
def test_lookups_by_value_are_refused(notes: Any, lookup: dict[str, Any], door: str) -> None:
    make(notes)
    with pytest.raises(FieldError):
        getattr(notes.objects, door)(**{f"own_text{suffix}": value for suffix, value in lookup.items()})


def test_get_or_create_by_value_is_refused(notes: Any) -> None:
    with pytest.raises(FieldError):
        notes.objects.get_or_create(own_text=CANARY)


def test_isnull_is_the_only_lookup_and_works_in_every_place(notes: Any) -> None:
    note, empty = make(notes), notes.objects.create()
    assert notes.objects.filter(own_text__isnull=False, other__isnull=True).get() == note
    assert notes.objects.exclude(own_text__isnull=False).get() == empty
    assert not notes.objects.filter(Q(own_text__isnull=True) & Q(other__isnull=False)).exists()
    annotated = notes.objects.annotate(has=Case(When(own_text__isnull=False, then=Value(1)), default=Value(0)))
    assert dict(annotated.values_list("pk", "has")) == {note.pk: 1, empty.pk: 0}
    same = notes.objects.filter(pk=OuterRef("pk"), own_text__isnull=False)
    assert notes.objects.filter(Exists(same)).get() == note
    assert notes.objects.filter(own_text__isnull=False).update(title="held") == 1
    assert notes.objects.filter(own_text__isnull=False).delete()[0] == 1


COMPUTING: dict[str, Callable[[Any], Any]] = {
    "order_by": lambda rows: rows.order_by("own_text"),
    "order_by, descending": lambda rows: rows.order_by("title", "-own_text"),
    "order_by(F)": lambda rows: rows.order_by(F("own_text").desc()),
    "latest": lambda rows: [rows.latest("own_text")],
    "filter by it": lambda rows: rows.filter(title=F("own_text")),
    "annotate": lambda rows: rows.annotate(x=Length("own_text")),
    "annotate, joined": lambda rows: rows.annotate(x=Coalesce("own_text", "other")),
    "annotate, in Case": lambda rows: rows.annotate(x=Case(When(title="", then=F("own_text")))),
    "aggregate": lambda rows: rows.aggregate(x=Max("own_text")),
    "count": lambda rows: rows.aggregate(x=Count("own_text")),
    "window": lambda rows: rows.annotate(x=Window(RowNumber(), order_by=F("own_text").asc())),
    "update of another": lambda rows: rows.update(title=F("own_text")),
    "distinct on": lambda rows: rows.distinct("own_text"),
}


@pytest.mark.parametrize(
    "computing",
    [*list(COMPUTING)[:-1], pytest.param("distinct on", marks=pytest.mark.postgresql)],
)
def test_computing_with_an_encrypted_column_is_refused(notes: Any, computing: str) -> None:
    note = make(notes)
    with pytest.raises((FieldError, DatabaseError)) as refused:
        list(COMPUTING[computing](notes.objects.all()))
    # The error comes from Django, or from the database for the unknown function.
    assert "only be selected" in str(refused.value).replace("_", " ")
    assert opened(again(note)) == CANARY
    assert again(note).title == ""


def test_encrypted_column_can_be_selected_in_every_way(notes: Any) -> None:
    note = make(notes, title="b")
    rows = notes.objects.filter(pk=note.pk)
    for actual in (
        rows.values("own_text").get()["own_text"],
        rows.values_list("own_text", flat=True).get(),
        rows.annotate(again=F("own_text")).get().again,
        rows.annotate(again=Subquery(notes.objects.filter(pk=OuterRef("pk")).values("own_text"))).get().again,
        rows.annotate(many=Count("pk")).get().own_text,
        rows.distinct().get().own_text,
        rows.values("own_text").annotate(many=Count("pk")).get()["own_text"],
        rows.union(notes.objects.none(), rows).get().own_text,
        rows.order_by("title").only("own_text").get().own_text,
    ):
        assert isinstance(actual, EncryptedText)
        assert actual.ciphertext == in_database(note, "own_text")
    assert rows.annotate(many=Count("pk")).count() == rows.count() == 1


OPTIONS: dict[str, Any] = {
    "unique": True,
    "primary_key": True,
    "db_index": True,
    "choices": [("a", "A")],
    "default": "a",
    "db_default": "a",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_field_option_that_would_use_ciphertext_is_refused(option: str) -> None:
    assert SealedTextField(bind=("id",))
    with pytest.raises(ImproperlyConfigured, match=option):
        SealedTextField(bind=("id",), **{option: OPTIONS[option]})


MODEL_OPTIONS: dict[str, Callable[[str], Any]] = {
    "ordering": lambda name: ["-id", f"-{name}"],
    "get_latest_by": lambda name: name,
    "unique_together": lambda name: [("number", name)],
    "indexes": lambda name: [models.Index(fields=["number", f"-{name}"], name="an_index")],
    "constraints": lambda name: [models.UniqueConstraint(fields=["number", name], name="a_constraint")],
}


@pytest.mark.parametrize("option", MODEL_OPTIONS)
def test_model_option_that_would_use_ciphertext_is_refused(option: str) -> None:
    def declare(name: str) -> None:
        with isolate_apps("django_phi_oidc"):
            fields = {"number": models.IntegerField(), "text": SealedTextField(bind=("number",))}
            options = {"app_label": "django_phi_oidc", option: MODEL_OPTIONS[option](name)}
            type("Declared", (models.Model,), {"__module__": __name__, "Meta": type("Meta", (), options), **fields})

    declare("number")
    with pytest.raises(ImproperlyConfigured, match=option):
        declare("text")


def test_deconstruct_returns_the_arguments_for_a_migration() -> None:
    field: Any = StoredClaim._meta.get_field("value")
    name, path, args, kwargs = field.deconstruct()
    assert (name, path, args) == ("value", "django_phi_oidc.fields.SealedTextField", [])
    assert SealedTextField(*args, **kwargs).deconstruct()[3] == kwargs
    assert kwargs["bind"] == ("subject_id", "session", "name", "owner", "retained_until")
