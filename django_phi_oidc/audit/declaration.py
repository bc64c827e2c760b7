"""A witness of `AUDIT["witnesses"]`, parsed into a frozen value. No Django."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from ..config._parsing import checked, is_url, parse_declaration, parse_name, parse_string
from ..config.providers import is_loopback_http

_KEY_PATTERN = re.compile(r"[^\s+]{1,255}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+")


def _is_witness_url(url: str) -> bool:
    return is_url(url, forbidden=" #@?") and (
        urlsplit(url).scheme == "https" or is_loopback_http(url)
    )


def _parse_path(path: str, value: Any) -> str:
    return parse_string(path, str(value) if isinstance(value, Path) else value)


_parse_key = checked(parse_string, _KEY_PATTERN.fullmatch, "must be a verifier key: name+id+key")
_parse_url = checked(
    parse_string, _is_witness_url, "must be https (http only for loopback), without user or query"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessDeclaration:
    """A witness that cosigns the checkpoints of the audit log."""

    name: str
    key: Annotated[str, _parse_key]
    """Its verifier key for cosignatures, `name+id+key`, as its operator publishes it."""
    url: Annotated[str, _parse_url]
    """Its submission prefix, to which `/add-checkpoint` is added; http on loopback only."""
    ca_bundle: Annotated[str, _parse_path] = ""
    """File of the CA that signed its certificate. Default: system."""


def parse_witness(name: str, raw: Any) -> WitnessDeclaration:
    """Return the witness that raw declares. Raises: DeclarationInvalid with all mistakes, and no
    value.
    """
    path = f"AUDIT['witnesses'][{name!r}]"
    parse_name(path, name)
    return parse_declaration(WitnessDeclaration, path, raw, name=name)
