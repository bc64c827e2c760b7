"""Faults in the HTML of a page that a browser does not report: a button without its form, an item without its list."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
LISTS = {"ul", "ol", "menu"}
HEADINGS = {"h1", "h2"}
MAIN = "main"
"""The id of the part without the navigation, in each theme."""


@dataclass(slots=True)
class Markup:
    """What the checks need to know about a page."""

    forms: set[str] = field(default_factory=set)
    """Ids of forms."""
    ids: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    """Addresses of style sheets."""
    headings: list[str] = field(default_factory=list)
    """Texts of the headings of the first and second level, with single spaces."""
    labels: set[str] = field(default_factory=set)
    """Ids that labels refer to."""
    faults: list[str] = field(default_factory=list)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.markup = Markup()
        self.outside: list[tuple[str, str]] = []
        """Buttons outside a form: form attribute and description."""
        self._open: list[str] = []
        self._main = 0
        """How many elements were open where the main part of the page began; 0 outside of it."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        markup = self.markup
        markup.classes.update(values.get("class", "").split())
        markup.ids.update(filter(None, [values.get("id", "")]))
        if values.get("id") == MAIN:
            self._main = len(self._open) + 1
        if tag == "form":
            markup.forms.update(filter(None, [values.get("id", "")]))
        elif tag == "link" and values.get("rel") == "stylesheet":
            markup.links.append(values.get("href", ""))
        elif tag == "label" and "for" in values:
            markup.labels.add(values["for"])
        elif tag == "li" and self._main and (not self._open or self._open[-1] not in LISTS):
            markup.faults.append(f"li in {self._open[-1:]}")
        is_submit = tag in {"input", "button"} and values.get("type") == "submit"
        if is_submit and self._main and "form" not in self._open:
            self.outside.append((values.get("form", ""), values.get("value") or values.get("name", tag)))
        if tag in HEADINGS:
            markup.headings.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if len(self._open) < self._main:
            self._main = 0

    def handle_data(self, data: str) -> None:
        if HEADINGS & {*self._open}:
            self.markup.headings[-1] += data


def parse_markup(page: str) -> Markup:
    """Return the forms, ids, headings and faults of a page."""
    parser = _Parser()
    parser.feed(page)
    markup = parser.markup
    markup.headings = [" ".join(text.split()) for text in markup.headings]
    markup.faults += [f"button of no form: {text}" for form, text in parser.outside if form not in markup.forms]
    return markup
