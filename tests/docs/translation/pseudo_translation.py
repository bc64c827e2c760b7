"""A stand-in translation, and what it leaves of a page: each text that is of no catalogue.

It writes the letters of a msgid wide, and leaves what is put into it as it is: a name in English is found in the middle
of a sentence that is translated, too.
"""

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import django
import pytest
from django.template.base import Lexer, TokenType
from django.utils import translation
from django.utils.translation.template import templatize

import django_phi_oidc

OURS = Path(django_phi_oidc.__file__).parent
PAGES = sorted(path for path in OURS.rglob("templates/**/*") if path.suffix in {".html", ".txt"})
_KEPT = re.compile(r"%\(\w+\)[a-z]|%[a-z%]|\{\w*\}|<[^>]*>|&#?\w+;")
_WIDE = {code: code + 0xFEE0 for code in (*range(0x41, 0x5B), *range(0x61, 0x7B))}
_LETTERS = re.compile(r"[A-Za-z]")
_SPOKEN = ("title", "alt", "aria-label", "aria-description", "placeholder")
_FUNCTIONS = re.compile(r"_|n?p?gettext(_lazy|_noop)?")
_SKIPPED = {"script", "style", "code", "pre"}
_FOR_SCRIPT = {"data-session", "data-url", "data-token", "data-expired", "data-model-name"}
"""What scripts take from their tags besides texts and numbers."""
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def wide(text: str) -> str:
    """Return text as the stand-in has it: what is put in, tags and entities are left."""
    kept, parts = _KEPT.findall(text), _KEPT.split(text)
    return "".join(part.translate(_WIDE) + mark for part, mark in zip(parts, [*kept, ""], strict=True))


def put_in(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Let the stand-in translate from now on; return the set of all that it is asked for, which grows."""
    asked: set[str] = set()

    def one(text: str) -> str:
        asked.add(text)
        return wide(text)

    def several(single: str, plural: str, number: int) -> str:
        asked.update((single, plural))
        return wide(single if number == 1 else plural)

    catalogue: Any = translation._trans  # type: ignore[attr-defined]
    monkeypatch.setattr(catalogue, "gettext", one)
    monkeypatch.setattr(catalogue, "ngettext", several)
    monkeypatch.setattr(catalogue, "pgettext", lambda context, text: one(text))
    monkeypatch.setattr(catalogue, "npgettext", lambda context, *given: several(*given))
    return asked


class Spoken(HTMLParser):
    """Collects the texts of a page, also those for screen readers, each with the name of its element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[tuple[str, str]] = []
        self._inside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = {name: value or "" for name, value in attrs}
        is_button = tag == "input" and given.get("type") in {"submit", "button", "reset"}
        of_script = [name for name in given if tag == "script" and name.startswith("data-") and name not in _FOR_SCRIPT]
        for name in (*_SPOKEN, *(["value"] if is_button else []), *of_script):
            if given.get(name):
                self.said.append((f"@{name}", given[name]))
        if tag not in _VOID:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not _SKIPPED & set(self._inside) and data.strip():
            self.said.append((self._inside[-1] if self._inside else "", data.strip()))


def untranslated(page: str, *, data: re.Pattern[str]) -> list[tuple[str, str]]:
    """Return the texts of a page that have letters of their own once all that is data is gone."""
    return [(where, text) for where, text in Spoken(page).said if _LETTERS.search(data.sub("", text))]


def of_its_own(template: str) -> list[tuple[str, str]]:
    """Return the texts in a template that do not come from its context."""
    inside, parts = "", []
    for token in Lexer(template).tokenize():
        if token.token_type == TokenType.BLOCK:
            # What is in one is translated; what is in the others is the name of a class.
            if token.contents.startswith(("blocktranslate", "block bodyclass", "block coltype")):
                inside = f"end{token.contents.split()[0]}"
            elif token.contents == inside:
                inside = ""
        elif token.token_type == TokenType.TEXT and not inside:
            parts.append(token.contents)
    return untranslated("".join(parts), data=re.compile(r"\bUTC\b"))


def extracted() -> set[str]:
    """Return what makemessages finds in the app."""
    found: set[str] = set()
    for path in OURS.rglob("*.py"):
        found |= set(_of_calls(ast.parse(path.read_text())))
    for path in PAGES:
        # What Django makes of a template for xgettext: calls, among what is crossed out.
        for call in re.findall(
            r"""\b(?:_|n?p?gettext)\((?:u?'(?:\\.|[^'])*'|u?"(?:\\.|[^"])*"|[\w, ])+\)""", templatize(path.read_text())
        ):
            found |= set(_of_calls(ast.parse(call)))
    return found


def _of_calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and _FUNCTIONS.fullmatch(node.func.id):
            # The first argument of pgettext is the context.
            texts = node.args[1:] if "pgettext" in node.func.id else node.args
            yield from (each.value for each in texts if isinstance(each, ast.Constant) and isinstance(each.value, str))


def of_django() -> set[str]:
    """Return the msgids of Django's own catalogues."""
    found = set()
    for path in Path(django.__file__).parent.rglob("locale/en/LC_MESSAGES/django.po"):
        for quoted in re.findall(r'^msgid(?:_plural)? ((?:".*"\n)+)', path.read_text(), re.MULTILINE):
            found.add("".join(ast.literal_eval(line) for line in quoted.splitlines()))
    return found
