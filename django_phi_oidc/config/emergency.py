"""What may be opened in an emergency, for how long, and who is told, as declared in `EMERGENCY`. No Django."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..errors import DeclarationInvalid

PACKAGE_PERMISSION_PREFIX = "django_phi_oidc."
"""The permissions of this app open emergencies, review them and reveal claims: nobody takes one in an emergency."""
MAX_DURATION = timedelta(hours=24)
MIN_DURATION = timedelta(minutes=1)
_PERMISSION_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*")
_EMAIL_ADDRESS_PATTERN = re.compile(r"[^@\s,<>]+@[^@\s,<>]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyDeclaration:
    """What emergencies are to this portal."""

    permissions: Mapping[str, str]
    """Permission → what people read of it: those that may be taken, none of `django_phi_oidc`."""
    mail_to: tuple[str, ...]
    """List of addresses that are told of each emergency at once: the privacy officer's."""
    longest: timedelta = timedelta(hours=1)
    """timedelta or seconds, from a minute to 24 hours: for how long one may be opened."""
    spool: Path | None = None
    """Absolute path of a file of this machine, for permits
    [while the trail is away](../how-to/emergency-access.md#while-the-trail-is-away).
    Default: none: they are refused then."""


def parse_emergency(raw: Any) -> EmergencyDeclaration:
    """Return what raw declares. Raises: DeclarationInvalid, which names the option."""
    if not isinstance(raw, Mapping):
        raise DeclarationInvalid("EMERGENCY must be a dictionary.")
    known = {field.name: field for field in fields(EmergencyDeclaration)}
    if unknown := sorted(str(key) for key in raw if key not in known):
        raise DeclarationInvalid(f"EMERGENCY has no option {', '.join(unknown)}.")
    if missing := sorted(key for key, field in known.items() if field.default is MISSING and key not in raw):
        raise DeclarationInvalid(f"EMERGENCY lacks {', '.join(missing)}.")
    return EmergencyDeclaration(
        permissions=_parse_permissions(raw["permissions"]),
        mail_to=_parse_email_addresses(raw["mail_to"]),
        longest=_parse_duration(raw.get("longest", known["longest"].default)),
        spool=_parse_spool(raw.get("spool")),
    )


def _parse_permissions(raw: Any) -> Mapping[str, str]:
    if not isinstance(raw, Mapping) or not raw:
        raise DeclarationInvalid("EMERGENCY['permissions'] must be a dictionary of permissions and what people read.")
    for name, label in raw.items():
        if not isinstance(name, str) or not _PERMISSION_PATTERN.fullmatch(name) or not str(label).strip():
            raise DeclarationInvalid("EMERGENCY['permissions']: 'app.codename', and in words what it lets one do.")
        if name.startswith(PACKAGE_PERMISSION_PREFIX):
            raise DeclarationInvalid(f"EMERGENCY['permissions']: {name} can't be taken in an emergency.")
    return dict(raw)


def _parse_email_addresses(raw: Any) -> tuple[str, ...]:
    # A text is a list of its letters to whoever forgets the brackets.
    if not isinstance(raw, list | tuple) or not raw:
        raise DeclarationInvalid("EMERGENCY['mail_to'] must be a list of addresses, and not empty.")
    if not all(isinstance(address, str) and _EMAIL_ADDRESS_PATTERN.fullmatch(address) for address in raw):
        raise DeclarationInvalid("EMERGENCY['mail_to']: an address is such as privacy@example.org.")
    return tuple(raw)


def _parse_duration(value: Any) -> timedelta:
    """Seconds, as JSON has them, or a timedelta."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_DURATION.total_seconds():
        value = timedelta(seconds=value)
    if isinstance(value, timedelta) and MIN_DURATION <= value <= MAX_DURATION:
        return value
    raise DeclarationInvalid("EMERGENCY['longest'] must be a timedelta or seconds, from a minute to 24 hours.")


def _parse_spool(value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | Path) or not Path(value).is_absolute():
        raise DeclarationInvalid("EMERGENCY['spool'] must be the absolute path of a file.")
    return Path(value)
