"""`make messages`: extract the texts of each app into the catalogues of its languages, and compile them.

A text belongs to the app that contains its file: the innermost folder with an `apps.py`. The core therefore has the
texts of `contrib/common`, which is no app. A text in the files of several apps is in the catalogue of each of them,
so that each app is complete by itself. Django shows the translation of the app that is installed first, so all of
them must be the same.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po, write_po

import django_phi_oidc

LANGUAGES = ("de", "es", "fr")
CORE = Path(django_phi_oidc.__file__).parent
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


def list_apps() -> list[Path]:
    """Return the folders of the core and of all apps of the package, installed or not: the core first."""
    configs = [*CORE.glob("*/apps.py"), *CORE.glob("contrib/*/apps.py")]
    return [CORE, *sorted(config.parent for config in configs)]


def find_app(place: str, apps: Iterable[Path]) -> Path:
    """Return the app that contains a file. place: the path of the file below the core."""
    inner = [app for app in apps if app in (CORE / place).parents]
    return max(inner, key=lambda app: len(app.parts))


def get_path(app: Path, language: str, suffix: str = ".po", domain: str = "django") -> Path:
    """Return the path of a catalogue. domain: `djangojs` of the core has texts of Django's scripts."""
    return app / "locale" / language / "LC_MESSAGES" / f"{domain}{suffix}"


def get_template(app: Path) -> Path:
    """Return the path of the app's template for catalogues of other languages."""
    return app / "locale" / "django.pot"


def get_plural_forms(language: str) -> str:
    """Return the rule of the plural, in gettext's notation."""
    return f"nplurals=2; plural=({'n > 1' if language == 'fr' else 'n != 1'});"


def read_catalogue(app: Path, language: str, domain: str = "django") -> Catalog:
    """Return the catalogue of a language in the app."""
    with get_path(app, language, domain=domain).open("rb") as file:
        return read_po(file, locale=language)


def read_catalogues(language: str) -> dict[Path, Catalog]:
    """Return the catalogues of a language by their apps: also those of a folder that is no app any more."""
    apps = sorted(path.parents[3] for path in CORE.rglob(f"locale/{language}/LC_MESSAGES/django.po"))
    return {app: read_catalogue(app, language) for app in apps}


def extract_texts() -> Catalog:
    """Return the texts that makemessages finds in the core and in all apps. Requires: xgettext."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "app"
        shutil.copytree(CORE, folder, ignore=shutil.ignore_patterns("locale", "__pycache__"))
        (folder / "locale").mkdir()
        command = [sys.executable, "-m", "django", "makemessages", "--locale", "en", "--add-location", "file"]
        # The settings of a test run cannot be imported from this folder, and makemessages needs none.
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        with (folder / "locale" / "en" / "LC_MESSAGES" / "django.po").open("rb") as file:
            return read_po(file, locale="en")


def split_texts(texts: Catalog) -> dict[Path, Catalog]:
    """Return the texts of each app that has some, with the places below that app."""
    apps = list_apps()
    split: dict[Path, Catalog] = {}
    for message in texts:
        if not message.id:
            continue
        for place in message.locations:
            app = find_app(place[0], apps)
            catalogue = split.setdefault(app, Catalog(locale="en"))
            # A catalogue joins the places of a text that it already has.
            catalogue.add(
                message.id,
                message.string,
                locations=[place],
                flags=message.flags,
                context=message.context,
            )
    return split


def find_translation(message: Message, catalogues: Iterable[Catalog]) -> str | tuple[str, ...] | None:
    """Return the first translation of a text in the catalogues."""
    for catalogue in catalogues:
        known = catalogue.get(message.id, message.context)
        if known and is_translated(known.string):
            string: str | tuple[str, ...] = known.string
            return string
    return None


def update_catalogue(language: str, texts: Catalog, known: Sequence[Catalog]) -> Catalog:
    """Return the texts with their translations. A new text has none, an old one is dropped.

    known: the catalogues to search for a translation, in this order. A text that moved to another app keeps its own.
    """
    catalogue = Catalog(locale=language)
    catalogue.mime_headers = [("Plural-Forms", get_plural_forms(language))]
    for message in sorted(filter(lambda text: text.id, texts), key=lambda text: (str(text.id), text.context or "")):
        string = find_translation(message, known) or message.string
        places = sorted(set(message.locations))
        flags = message.flags - {"fuzzy"}
        catalogue.add(message.id, string, places, flags, context=message.context)
    return catalogue


def format_catalogue(language: str, catalogue: Catalog) -> bytes:
    """Return the catalogue as text."""
    file = BytesIO()
    file.write(_HEADER.format(language=language, plural_forms=get_plural_forms(language)).encode())
    write_po(file, catalogue, width=118, omit_header=True, include_lineno=False)
    return file.getvalue()


def compile_catalogue(app: Path, language: str, domain: str) -> None:
    """Write the binary catalogue, as compilemessages does."""
    source = get_path(app, language, domain=domain)
    compiled = get_path(app, language, ".mo", domain)
    subprocess.run(["msgfmt", "--check-format", "--output-file", compiled, source], check=True)


def main() -> None:
    """Write all catalogues, and print how many texts are not translated."""
    texts = split_texts(extract_texts())
    for app, own in texts.items():
        get_template(app).parent.mkdir(exist_ok=True)
        get_template(app).write_bytes(format_catalogue("", update_catalogue("en", own, [])))
    for language in LANGUAGES:
        # All are read before the first is written: a text may have moved from any to any.
        known = read_catalogues(language)
        count = 0
        missing = 0
        for app, own in texts.items():
            earlier = [known[app]] if app in known else []
            catalogue = update_catalogue(language, own, [*earlier, *known.values()])
            get_path(app, language).parent.mkdir(parents=True, exist_ok=True)
            get_path(app, language).write_bytes(format_catalogue(language, catalogue))
            compile_catalogue(app, language, "django")
            count += len(catalogue)
            missing += sum(not is_translated(message.string) for message in catalogue if message.id)
        compile_catalogue(CORE, language, "djangojs")
        print(f"{language}: {count} texts, {missing} not translated")
    for folder in sorted(CORE.rglob("locale")):
        if folder.parent not in texts:
            shutil.rmtree(folder)
            print(f"removed {folder.relative_to(CORE)}: it has no texts any more")


def is_translated(string: str | tuple[str, ...] | list[str]) -> bool:
    """Return whether the text has a translation, in all plural forms."""
    return bool(string) if isinstance(string, str) else bool(string) and all(string)


if __name__ == "__main__":
    main()
