"""The catalogues of each app have the texts of that app, and nothing else."""

import gettext
import json
import re
from pathlib import Path

import django
import pytest
from babel.messages.catalog import Catalog, Message
from django.apps import apps
from django.contrib import admin
from django.test import RequestFactory
from django.utils import translation

from django_phi_oidc._internal.admin_theme import DJANGO_TEXTS
from django_phi_oidc.claims.models import get_claim_label
from tests.docs.translation.catalogues import (
    CORE,
    LANGUAGES,
    extract_texts,
    find_app,
    get_path,
    get_template,
    is_translated,
    list_apps,
    read_catalogue,
    read_catalogues,
    split_texts,
    update_catalogue,
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


def list_keys(catalogue: Catalog) -> set[Key]:
    return {(message.id, message.context) for message in catalogue if message.id}


def list_messages(language: str) -> dict[Key, Message]:
    """Return the messages of all apps."""
    messages: dict[Key, Message] = {}
    for catalogue in read_catalogues(language).values():
        messages |= {(message.id, message.context): message for message in catalogue if message.id}
    return messages


@pytest.mark.gettext
@pytest.mark.parametrize("language", LANGUAGES)
def test_catalogue_has_the_texts_of_its_app(language: str) -> None:
    texts = {app: list_keys(catalogue) for app, catalogue in split_texts(extract_texts()).items()}
    known = {app: list_keys(catalogue) for app, catalogue in read_catalogues(language).items()}
    assert texts == known, "run `make messages`, and translate the new texts"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_text_is_translated(language: str) -> None:
    messages = list_messages(language)
    assert len(messages) > 700
    assert not [key for key, message in messages.items() if message.fuzzy or not is_translated(message.string)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_of_several_apps_has_one_translation(language: str) -> None:
    """Django shows that of the app that is installed first, for the texts of the others as well."""
    translations: dict[Key, dict[str | tuple[str, ...], list[str]]] = {}
    for app, catalogue in read_catalogues(language).items():
        for message in catalogue:
            if message.id:
                strings = translations.setdefault((message.id, message.context), {})
                strings.setdefault(message.string, []).append(app.name)
    shared = [key for key, strings in translations.items() if len(next(iter(strings.values()))) > 1]
    assert len(shared) > 50
    assert {key: strings for key, strings in translations.items() if len(strings) > 1} == {}


def test_each_catalogue_is_where_django_looks_for_it() -> None:
    """Django looks in the folder of each installed app."""
    folders = {Path(config.path) for config in apps.get_app_configs()}
    installed = {app for app in list_apps() if app in folders}
    assert {CORE, CORE / "audit"} <= installed
    found = {path.parent for path in CORE.rglob("locale")}
    assert found <= {*list_apps()}
    for app in found:
        assert get_template(app).exists()
        assert all(get_path(app, language, ".mo").exists() for language in LANGUAGES)


@pytest.mark.parametrize(
    ("place", "app"),
    [
        ("oidc/remedies.py", "."),
        ("management/subcommands/apps.py", "."),
        ("contrib/common/person_forms.py", "."),
        ("audit/admin/event_page.py", "audit"),
        ("testing/apps.py", "testing"),
        ("contrib/scim/admin.py", "contrib/scim"),
    ],
)
def test_text_belongs_to_the_app_that_contains_its_file(place: str, app: str) -> None:
    assert find_app(place, list_apps()) == CORE / app


def test_text_that_moves_to_another_app_keeps_its_translation() -> None:
    texts = Catalog(locale="de")
    texts.add("moved", locations=[("contrib/scim/admin.py", None)])
    texts.add("shared", locations=[("contrib/scim/admin.py", None), ("audit/admin.py", None)])
    texts.add("new", "", locations=[("contrib/scim/admin.py", None)])
    of_scim = Catalog(locale="de")
    of_scim.add("shared", "gemeinsam")
    of_scim.add("dropped", "entfallen")
    of_core = Catalog(locale="de")
    of_core.add("shared", "anders")
    of_core.add("moved", "verschoben")
    split = split_texts(texts)
    assert list_keys(split[CORE / "audit"]) == {("shared", None)}
    updated = update_catalogue("de", split[CORE / "contrib/scim"], [of_scim, of_core])
    translations = {message.id: message.string for message in updated if message.id}
    assert translations == {"moved": "verschoben", "new": "", "shared": "gemeinsam"}


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


def assert_is_compiled(app: Path, language: str, domain: str) -> None:
    with get_path(app, language, ".mo", domain).open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    messages = list(filter(lambda message: message.id, read_catalogue(app, language, domain)))
    assert messages
    for message in messages:
        if isinstance(message.id, str):
            assert message.context or compiled.gettext(message.id) == message.string
        else:
            assert [compiled.ngettext(*message.id, number) for number in (1, 2)] == list(message.string)


@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_catalogue_is_the_text(language: str) -> None:
    for app in read_catalogues(language):
        assert_is_compiled(app, language, "django")
    assert_is_compiled(CORE, language, "djangojs")


@pytest.mark.parametrize("language", LANGUAGES)
def test_django_finds_the_catalogues(language: str) -> None:
    installed = {Path(config.path) for config in apps.get_app_configs()}
    for app, catalogue in read_catalogues(language).items():
        if app not in installed:
            continue
        for message in catalogue:
            if isinstance(message.id, str) and message.id and not message.context and message.id not in SAME_MEANING:
                with translation.override(language):
                    assert translation.gettext(message.id) == message.string


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
