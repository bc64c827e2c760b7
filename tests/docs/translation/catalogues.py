"""`make messages`: extract the texts of the app into the catalogues of its languages, and compile them."""

import os
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

import django_phi_oidc

LANGUAGES = ("de", "es", "fr")
DOMAINS = ("django", "djangojs")
APP = Path(django_phi_oidc.__file__).parent
TEMPLATE = APP / "locale" / "django.pot"
"""Of the catalogues of other languages."""
_HEADER = """\
# `make messages` adds the new texts of django_phi_oidc, and compiles the catalogue.
msgid ""
msgstr ""
"Language: {language}\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: {plural_forms}\\n"

"""
"""Without times and names, so that a catalogue changes only with its texts."""


def get_path(language: str, suffix: str = ".po", domain: str = "django") -> Path:
    """Return the path of a catalogue. domain: `djangojs` has texts of Django's scripts, which nothing extracts."""
    return APP / "locale" / language / "LC_MESSAGES" / f"{domain}{suffix}"


def get_plural_forms(language: str) -> str:
    """Return the rule of the plural, in gettext's notation."""
    return f"nplurals=2; plural=({'n > 1' if language == 'fr' else 'n != 1'});"


def read_catalogue(language: str, domain: str = "django") -> Catalog:
    """Return the catalogue of a language in the package."""
    with get_path(language, domain=domain).open("rb") as file:
        return read_po(file, locale=language)


def extract_texts() -> Catalog:
    """Return the texts that makemessages finds in the app. Requires: xgettext."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "app"
        shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("locale", "__pycache__"))
        (folder / "locale").mkdir()
        command = [sys.executable, "-m", "django", "makemessages", "--locale", "en", "--add-location", "file"]
        # The settings of a test run cannot be imported from this folder, and makemessages needs none.
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        with (folder / "locale" / "en" / "LC_MESSAGES" / "django.po").open("rb") as file:
            return read_po(file, locale="en")


def update_catalogue(language: str, texts: Catalog) -> Catalog:
    """Return the texts with the translations of the package. A new text has none, an old one is dropped."""
    known = read_catalogue(language) if get_path(language).exists() else Catalog(locale=language)
    catalogue = Catalog(locale=language)
    catalogue.mime_headers = [("Plural-Forms", get_plural_forms(language))]
    for message in sorted(filter(lambda text: text.id, texts), key=lambda text: (str(text.id), text.context or "")):
        translated = known.get(message.id, message.context)
        string = translated.string if translated else message.string
        places, flags = sorted(set(message.locations)), message.flags - {"fuzzy"}
        catalogue.add(message.id, string, places, flags, context=message.context)
    return catalogue


def format_catalogue(language: str, catalogue: Catalog) -> bytes:
    """Return the catalogue as text."""
    file = BytesIO()
    file.write(_HEADER.format(language=language, plural_forms=get_plural_forms(language)).encode())
    write_po(file, catalogue, width=118, omit_header=True, include_lineno=False)
    return file.getvalue()


def main() -> None:
    """Write all catalogues, and print how many texts are not translated."""
    texts = extract_texts()
    TEMPLATE.parent.mkdir(exist_ok=True)
    TEMPLATE.write_bytes(format_catalogue("", update_catalogue("en", texts)))
    for language in LANGUAGES:
        catalogue = update_catalogue(language, texts)
        get_path(language).parent.mkdir(parents=True, exist_ok=True)
        get_path(language).write_bytes(format_catalogue(language, catalogue))
        # As compilemessages does.
        for domain in DOMAINS:
            paths = (get_path(language, suffix, domain) for suffix in (".mo", ".po"))
            subprocess.run(["msgfmt", "--check-format", "--output-file", *paths], check=True)
        missing = sum(not is_translated(message.string) for message in catalogue if message.id)
        print(f"{language}: {len(catalogue)} texts, {missing} not translated")


def is_translated(string: str | tuple[str, ...] | list[str]) -> bool:
    """Return whether the text has a translation, in all plural forms."""
    return bool(string) if isinstance(string, str) else bool(string) and all(string)


if __name__ == "__main__":
    main()
