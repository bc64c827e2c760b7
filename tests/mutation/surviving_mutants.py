"""The surviving mutants that docs/benchmarks/mutation-testing.md explains."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks" / "mutation-testing.md"
_HEADING = re.compile(r"^### `(\S+)`$", re.MULTILINE)
_ENTRY = re.compile(r"^ *- `([\w.]+)`: `([^`\n]+)` → (?:`([^`\n]+)`|nothing)$", re.MULTILINE)


class Change(NamedTuple):
    """A mutant: lines of a function without indentation, and their replacement."""

    module: str
    """Path in django_phi_oidc, such as oidc/jose.py."""
    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"  - `{self.function}`: `{self.before}` → " + (f"`{self.after}`" if self.after else "nothing")


def list_explained() -> list[Change]:
    return parse_page(PAGE.read_text())


def parse_page(page: str) -> list[Change]:
    """Return the mutants of a page, which lists them below their reasons, under a heading for each module."""
    modules, texts = (_HEADING.split(page)[start::2] for start in (1, 2))
    return [
        Change(module, *entry) for module, text in zip(modules, texts, strict=True) for entry in _ENTRY.findall(text)
    ]
