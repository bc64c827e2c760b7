"""The options of the audit log, parsed into frozen values. No Django."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ..config.option_grades import LATER, RARE, START_HERE
from ..config.option_parsers import (
    checked,
    fail,
    is_secure_url,
    mapping_of,
    parse_absolute_path,
    parse_declaration,
    parse_name,
    parse_raw,
    parse_string,
)
from ..crypto.declaration import KeysDeclaration

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_KEY_PATTERN = re.compile(r"[^\s+]{1,255}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+")


def _parse_path(path: str, value: Any) -> str:
    return parse_string(path, str(value) if isinstance(value, Path) else value)


_parse_key = checked(parse_string, _KEY_PATTERN.fullmatch, "must be a verifier key: name+id+key")
_parse_url = checked(
    parse_string,
    lambda url: is_secure_url(url, forbidden=" #@?"),
    "must be https (http only for loopback), without user or query",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessDeclaration:
    """A witness that cosigns the checkpoints of the audit log."""

    name: str
    key: Annotated[str, _parse_key] = field(metadata=LATER)
    """Its verifier key for cosignatures, `name+id+key`, as its operator publishes it."""
    url: Annotated[str, _parse_url] = field(metadata=LATER)
    """Its submission prefix, without `/add-checkpoint`; http on loopback only."""
    ca_bundle: Annotated[str, _parse_path] = field(default="", metadata=RARE)
    """File of the CA that signed its certificate. Default: system."""


def parse_witness(name: str, raw: Any) -> WitnessDeclaration:
    """Return the witness that raw declares. Raises: DeclarationInvalid with all mistakes, and no
    value.
    """
    path = f"AUDIT['witnesses'][{name!r}]"
    parse_name(path, name)
    return parse_declaration(WitnessDeclaration, path, raw, name=name)


def _parse_quorum(path: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        fail(path, "must be a number of witnesses")
    return value


def _parse_tiles(path: str, value: Any) -> Path | str:
    if isinstance(value, Path):
        return parse_absolute_path(path, value)
    if isinstance(value, str) and value:
        return value
    return fail(path, "must be a Path, or the name of a storage")


def _parse_networks(path: str, value: Any) -> tuple[Network, ...]:
    try:
        networks = []
        for network in value:
            networks.append(ipaddress.ip_network(str(network)))
        return tuple(networks)
    except (TypeError, ValueError):
        fail(path, "must be a list of networks")


@dataclass(frozen=True, kw_only=True)
class AuditDeclaration:
    """The option `AUDIT`."""

    origin: Annotated[str, parse_raw] = field(default="phi-oidc-audit", metadata=START_HERE)
    """The name of the log in each checkpoint: no spaces, no `+`. Do not change it later."""
    witness_file: Annotated[Path | str | None, parse_raw] = field(default=None, metadata=LATER)
    """Path of a file, outside of the database, that always contains the newest checkpoint; the
    sealer compares it.
    """
    resource_ids: Literal["plain", "keyed"] = field(default="plain", metadata=LATER)
    """`plain`, or `keyed`: events contain [a pseudonym](#keyed-resource-ids) instead of the id in
    `resource`.
    """
    witnesses: Annotated[Mapping[str, WitnessDeclaration], mapping_of(parse_witness)] = field(
        default_factory=dict, metadata=LATER
    )
    """Name → [witness](#a-witness): [independent parties](../how-to/witnesses.md) that cosign each
    checkpoint.
    """
    quorum: Annotated[int, _parse_quorum] | None = field(default=None, metadata=RARE)
    """How many witnesses must cosign a checkpoint. Default: more than half of them."""
    tiles: Annotated[Path | str, _parse_tiles] | None = field(default=None, metadata=RARE)
    """`pathlib.Path` of a folder, or the name of one of Django's `STORAGES`, for [hashes and
    checkpoint](../how-to/tiles.md), by which anybody can verify the log. Default: none: nothing is
    exported.
    """
    archives: Annotated[Path, parse_absolute_path] | None = field(default=None, metadata=LATER)
    """Absolute path of a folder with [archives](../how-to/archive-the-audit-log.md): the admin then
    shows archived events. Default: none: the admin only names the archive.
    """


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """The options of the audit log."""

    AUDIT: AuditDeclaration = field(default=AuditDeclaration(), metadata=START_HERE)
    """The [audit log](#audit). Default: see there."""
    # Here and not in the core, because events have a MAC without the core, too.
    KEYS: KeysDeclaration = field(default_factory=KeysDeclaration, metadata=START_HERE)
    """[Keys](#keys) by purpose. Default: required."""
    TRUSTED_PROXIES: Annotated[tuple[Network, ...], _parse_networks] = field(
        default=(), metadata=START_HERE
    )
    """Networks whose `X-Forwarded-For` is trusted, counted from the right."""
