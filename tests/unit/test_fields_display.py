"""Encrypted values are displayed by nothing: admin, templates, error pages, serializers and fixtures."""

import copy
import io
import json
import pickle
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.exceptions import FieldError
from django.core.management import CommandError, call_command
from django.core.serializers.base import DeserializationError, SerializationError
from django.db.models import F
from django.forms import model_to_dict, modelform_factory
from django.template import Context, Template
from django.test import Client
from django.urls import path
from django.views.debug import ExceptionReporter

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.crypto import keyring
from django_phi_oidc.fields import MASK
from django_phi_oidc.sessions.models import PendingRevocation, RevocationStatus
from tests.support.encrypted_note_model import CANARY, DAMAGES, again, in_database, make, notes, opened, write

__all__ = ["notes"]
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def revocation(**values: Any) -> PendingRevocation:
    """Return a row with an encrypted column, which may be empty."""
    now = clock.now()
    created = {"provider": "default", "status": RevocationStatus.DONE, "due_at": now, "created_at": now}
    return PendingRevocation.objects.create(id=uuid.uuid4(), **created, **values)


def admin_pages(notes: Any, settings: Any) -> Callable[..., str]:
    """Return a function that requests a page of the model's admin as an administrator."""
    site = admin.AdminSite()
    site.register(notes, list_display=["title", "own_text"], readonly_fields=["own_text"], fields=["title", "own_text"])
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    settings.ROOT_URLCONF = (path("admin/", site.urls),)
    settings.MIDDLEWARE = [item for item in settings.MIDDLEWARE if "django_phi_oidc" not in item]
    client = Client(headers={"host": "127.0.0.1"})
    administrator = get_user_model()._default_manager.create_superuser("administrator", password="x")
    client.force_login(administrator)

    def page(which: str, note: Any = None, **posted: str) -> str:
        address = f"/admin/django_phi_oidc/note/{f'{note.pk}/change/' if note else ''}"
        response = client.post(address, posted) if posted else client.get(address)
        assert response.status_code == (302 if posted else 200), which
        return str(response.content.decode())

    return page


def test_admin_displays_the_mask_and_keeps_the_value(notes: Any, settings: Any) -> None:
    note = make(notes, title="before")
    page = admin_pages(notes, settings)
    before = in_database(note, "own_text")
    for displayed in (page("changelist"), page("change", note)):
        assert MASK in displayed
        assert CANARY not in displayed
        assert before not in displayed
    page("change", note, title="after", own_text="forged")
    assert (again(note).title, in_database(note, "own_text")) == ("after", before)


@pytest.mark.parametrize("damage", DAMAGES)
def test_undecryptable_row_is_listed_in_the_admin(notes: Any, settings: Any, damage: str) -> None:
    note, whole = make(notes, title="damaged"), make(notes, title="whole")
    DAMAGES[damage](note, settings)
    assert {row.title: str(row.own_text) for row in notes.objects.exclude(title="")} == dict.fromkeys(
        ("damaged", "whole"), MASK
    )
    page = admin_pages(notes, settings)("changelist")
    assert page.count(MASK) == notes.objects.count()
    assert whole.title in page
    assert "forged" not in page


def test_no_form_contains_the_field(notes: Any) -> None:
    note = make(notes)
    assert "own_text" not in modelform_factory(notes, fields="__all__").base_fields
    assert "own_text" not in model_to_dict(note)
    with pytest.raises(FieldError):
        modelform_factory(notes, fields=["own_text"])


def test_values_templates_and_repr_display_the_mask(notes: Any) -> None:
    note = make(notes)
    template = Template("{{ note.own_text }} {{ note.own_text|upper }} {{ note.own_text|safe }}")
    for displayed in (
        note.own_text,
        notes.objects.values("own_text").get(),
        notes.objects.values_list("own_text").get(),
        notes.objects.annotate(again=F("own_text")).get().again,
        vars(note)["own_text"],
        f"{note.own_text} {note.own_text!r}",
        template.render(Context({"note": note})),
    ):
        assert MASK in repr(displayed)
        assert CANARY not in repr(displayed)
        assert in_database(note, "own_text") not in repr(displayed)
    with pytest.raises(TypeError):
        json.dumps(note.own_text)


def test_error_pages_display_the_mask(notes: Any) -> None:
    make(notes)

    def fail() -> None:
        note = notes.objects.get()
        value, rows = note.own_text, list(notes.objects.values())
        raise ZeroDivisionError((note, value, rows))

    try:
        fail()
    except ZeroDivisionError as error:
        reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
    for page in (reporter.get_traceback_html(), reporter.get_traceback_text()):
        assert "ZeroDivisionError" in page
        assert CANARY not in page
        assert in_database(notes.objects.get(), "own_text") not in page
    assert MASK in reporter.get_traceback_html()


def test_copies_and_pickles_contain_the_ciphertext_and_decrypt(notes: Any) -> None:
    note = make(notes)
    pickled = pickle.dumps(note.own_text)
    assert CANARY.encode() not in pickled
    for copied in (pickle.loads(pickled), copy.copy(note.own_text), copy.deepcopy(note.own_text)):
        assert (str(copied), copied.key_id) == (MASK, note.own_text.key_id)
        note.own_text = copied
        assert opened(note) == CANARY


@pytest.mark.parametrize("text", ["plain text", "plain: text", "20261125: plain text", "", "deadbeef"])
def test_text_that_names_no_key_has_an_empty_key_id(notes: Any, text: str) -> None:
    note = make(notes)
    assert note.own_text.key_id == keyring.get_keys("encryption")[0].id
    write(note, "own_text", f"20261125-86400:{text}")
    assert again(note).own_text.key_id == "20261125-86400"
    write(note, "own_text", text)
    assert again(note).own_text.key_id == ("20261125" if text.startswith("2026") else "")


FORMATS = [each for each in serializers.get_serializer_formats() if isinstance(serializers.get_serializer(each), type)]


def test_formats_are_more_than_one() -> None:
    assert {"json", "jsonl", "python", "xml"} <= set(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
def test_serializing_an_encrypted_value_is_refused_with_advice(notes: Any, form: str) -> None:
    note = make(notes, title="shown")
    for value in (note.own_text, CANARY):
        note.own_text, written = value, io.StringIO()
        with pytest.raises(SerializationError) as refused:
            serializers.serialize(form, [note], stream=written)
        for word in (
            "django_phi_oidc.Note.own_text",
            "--exclude django_phi_oidc.note",
            "fields=",
            "phi_oidc subject export",
        ):
            assert word in str(refused.value)
        assert CANARY not in written.getvalue() + str(refused.value)
        assert MASK not in written.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_serializing_other_fields_or_a_row_without_a_value_is_possible(form: str) -> None:
    (sealed, empty), names = (revocation(token=CANARY), revocation()), ["provider", "status", "due_at", "created_at"]
    for row, fields in ((sealed, names), (empty, None)):
        written = serializers.serialize(form, [row], fields=fields)
        (read,) = serializers.deserialize(form, written)
        assert (read.object.pk, read.object.provider, read.object.token) == (row.pk, "default", None)


def test_dumpdata_of_an_encrypted_value_is_refused_and_of_other_data_is_not() -> None:
    without, out = revocation(), io.StringIO()
    call_command("dumpdata", "django_phi_oidc.pendingrevocation", stdout=out)
    assert [row["pk"] for row in json.loads(out.getvalue())] == [str(without.pk)]
    revocation(token=CANARY)
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"PendingRevocation\.token is sealed.*--exclude django_phi_oidc\.pending"):
        call_command("dumpdata", "django_phi_oidc", stdout=out)
    assert CANARY not in out.getvalue()
    for left_out in ("django_phi_oidc.pendingrevocation", "django_phi_oidc"):
        out = io.StringIO()
        call_command("dumpdata", exclude=[left_out], stdout=out)
        assert "django_phi_oidc.pendingrevocation" not in {row["model"] for row in json.loads(out.getvalue())}


@pytest.mark.parametrize("value", [MASK, CANARY])
def test_fixture_with_an_encrypted_value_is_refused(notes: Any, value: str) -> None:
    note = make(notes)
    note.own_text = CANARY
    with pytest.raises(FieldError):
        note.save_base(raw=True)
    claim = {"model": "django_phi_oidc.storedclaim", "pk": 1, "fields": {"name": "x", "value": value}}
    with pytest.raises((DeserializationError, FieldError)):
        [item.save() for item in serializers.deserialize("json", io.StringIO(json.dumps([claim])))]
    assert not StoredClaim.objects.exists()
