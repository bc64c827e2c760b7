"""The mutants that docs/explanation/mutation-testing.md says survive, and why."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "mutation-testing.md"
_HEADING = re.compile(r"^### `(\S+)`$", re.MULTILINE)
_ENTRY = re.compile(r"^ *- `([\w.]+)`: `([^`\n]+)` → (?:`([^`\n]+)`|nothing)$", re.MULTILINE)


class Change(NamedTuple):
    """What a mutant is: lines of a function, without their indentation, and what stands in their place."""

    module: str
    """Its path in django_phi_oidc, such as oidc/jose.py."""
    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"  - `{self.function}`: `{self.before}` → " + (f"`{self.after}`" if self.after else "nothing")


def explained() -> list[Change]:
    return read(PAGE.read_text())


def read(page: str) -> list[Change]:
    """Return what a page lists: under a heading for each module, reasons, and below each of them the changes."""
    modules, texts = (_HEADING.split(page)[start::2] for start in (1, 2))
    return [
        Change(module, *entry) for module, text in zip(modules, texts, strict=True) for entry in _ENTRY.findall(text)
    ]
