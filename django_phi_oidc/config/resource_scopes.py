"""Scopes that a project requests in addition to those of its claims. No Django."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from .claims import parse_basis, parse_purpose
from .option_grades import LATER
from .option_parsers import fail, parse_declaration, parse_each, parse_mapping, parse_printable


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeDeclaration:
    """A scope that the project requests in addition to those of its claims, and why."""

    name: str
    purpose: Annotated[str, parse_purpose] = field(metadata=LATER)
    """HL7 v3 PurposeOfUse code."""
    basis: Annotated[str, parse_basis] = field(metadata=LATER)


def parse_scopes(path: str, value: Any) -> tuple[ScopeDeclaration, ...]:
    scopes = parse_mapping(path, value).items()
    return tuple(
        parse_each(lambda name, raw: _parse_scope(f"{path}[{name!r}]", name, raw), scopes).values()
    )


def _parse_scope(path: str, name: Any, raw: Any) -> ScopeDeclaration:
    """Spec: RFC 6749 3.3 (scope-token)."""
    parse_printable(path, name)
    if not name.isascii() or set(name) & set(' "\\'):
        fail(path, "must be visible ASCII without quotation mark and backslash")
    if name == "openid":
        fail(path, "is always requested: leave it out")
    return parse_declaration(ScopeDeclaration, path, raw, name=name)
