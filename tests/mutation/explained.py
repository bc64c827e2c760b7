"""The mutants that docs/explanation/mutation-testing.md says may survive, and why."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "mutation-testing.md"
_ENTRY = re.compile(r"^ *- `(?P<function>[\w.]+)`: (?P<before>.+) → (?P<after>.+)$", re.MULTILINE)


class Change(NamedTuple):
    """What a mutant is: lines of a function, without what surrounds them, and what stands in their place."""

    module: str
    """Its path in django_phi_oidc, such as oidc/jose.py."""
    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"  - `{self.function}`: {_quote(self.before)} → {_quote(self.after)}"


def explained() -> list[Change]:
    """Return what the page lists, in its order: under a heading for each module, reasons, and below them the changes."""
    sections = re.split(r"^### `(\S+)`$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return [
        Change(module, entry["function"], _unquote(entry["before"]), _unquote(entry["after"]))
        for module, text in zip(sections[::2], sections[1::2], strict=True)
        for entry in _ENTRY.finditer(text)
    ]


def _quote(code: str) -> str:
    mark = "``" if "`" in code else "`"
    return f"{mark} {code} {mark}" if mark == "``" else f"`{code}`" if code else "nothing"


def _unquote(text: str) -> str:
    return "" if text == "nothing" else text.strip("`").strip()
