"""The catalogues of the package have each text of the app, and nothing else."""

import gettext
import json
import re
from pathlib import Path

import django
import pytest
from babel.messages.catalog import Message
from django.contrib import admin
from django.test import RequestFactory
from django.utils import translation

from django_phi_oidc._internal.admin_theme import DJANGO_TEXTS
from django_phi_oidc.claims.models import get_claim_label
from tests.docs.translation.catalogues import (
    DOMAINS,
    LANGUAGES,
    extract_texts,
    get_path,
    is_translated,
    read_catalogue,
)

PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|%[a-z]|\{\w*\}|</?\w+[^>]*>")
SCRIPT_TEXT = re.compile(r"""\bgettext(?:_noop)?\(\s*(["'])(.+?)\1""")
SAME_MEANING = {
    *DJANGO_TEXTS,
    "All",
    "Clear all filters",
    "Email",
    "Filter",
    "No, take me back",
    "Page not found",
    "Past 7 days",
    "Permissions",
    "Show all",
    "User",
    "Yes, I’m sure",
    "user",
}
"""Texts of the admin that it translates by other words."""
Key = tuple[str | tuple[str, ...], str | None]


def list_messages(language: str) -> dict[Key, Message]:
    return {(message.id, message.context): message for message in read_catalogue(language) if message.id}


@pytest.mark.gettext
@pytest.mark.parametrize("language", LANGUAGES)
def test_catalogue_has_the_texts_of_the_app(language: str) -> None:
    texts = {(message.id, message.context) for message in extract_texts() if message.id}
    assert texts == list_messages(language).keys(), "run `make messages`, and translate the new texts"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_text_is_translated(language: str) -> None:
    messages = list_messages(language)
    assert len(messages) > 700
    assert not [key for key, message in messages.items() if message.fuzzy or not is_translated(message.string)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_translation_keeps_placeholders_tags_and_the_last_character(language: str) -> None:
    for message in list_messages(language).values():
        if isinstance(message.id, str):
            pairs = [(message.id, str(message.string))]
        else:
            # A singular may spell the number out.
            pairs = list(zip(message.id, message.string, strict=True))
        for text, translated in pairs:
            assert sorted(PLACEHOLDER.findall(text)) == sorted(PLACEHOLDER.findall(translated)), translated
            assert text[:1].isspace() == translated[:1].isspace(), translated
            assert (text[-1:] == ".") == (translated[-1:] == "."), translated


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_catalogue_is_the_text(language: str, domain: str) -> None:
    with get_path(language, ".mo", domain).open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    messages = list(filter(lambda message: message.id, read_catalogue(language, domain)))
    assert messages
    for message in messages:
        if isinstance(message.id, str):
            assert message.context or compiled.gettext(message.id) == message.string
        else:
            assert [compiled.ngettext(*message.id, number) for number in (1, 2)] == list(message.string)


@pytest.mark.parametrize("language", LANGUAGES)
def test_django_finds_the_catalogue(language: str) -> None:
    message = list_messages(language)["This is your own emergency access. Another person must review it.", None]
    with translation.override(language):
        assert translation.gettext(str(message.id)) == message.string != message.id


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_with_another_meaning_in_django_have_a_context(language: str) -> None:
    """The catalogue of an app that is installed before this one has precedence, as that of the admin."""
    different = set()
    for path in Path(django.__file__).parent.glob(f"contrib/*/locale/{language}/LC_MESSAGES/django.mo"):
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)
        for (text, context), message in list_messages(language).items():
            if isinstance(text, str) and not context:
                different |= {text} if catalogue.gettext(text) not in {text, message.string} else set()
    assert different <= SAME_MEANING


@pytest.mark.parametrize("language", LANGUAGES)
def test_date_fields_of_the_admin_are_translated(language: str) -> None:
    """The links beside them and the calendar are made by scripts, whose texts a view of the admin serves."""
    request = RequestFactory().get("/admin/jsi18n/")
    with translation.override(language):
        served = admin.site.i18n_javascript(request).content.decode()
    folder = Path(django.__file__).parent / "contrib" / "admin" / "static" / "admin" / "js"
    scripts = "".join((folder / name).read_text() for name in ("calendar.js", "admin/DateTimeShortcuts.js"))
    texts = {text for _quote, text in SCRIPT_TEXT.findall(scripts)}
    assert len(texts) > 20
    assert {text for text in texts if f"{json.dumps(text)}: " not in served} == set()


def test_labels_of_standard_claims_are_translated() -> None:
    with translation.override("de"):
        assert get_claim_label("phone_number") == "Telefonnummer"
        assert get_claim_label("blood_type") == "Blood type"
