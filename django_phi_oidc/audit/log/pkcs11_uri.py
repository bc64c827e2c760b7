"""PKCS#11 URIs: which key in which token, and where its PIN is. No Django, and no PKCS#11 library.

    pkcs11:token=portal;object=audit-log?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/portal/pin

Spec: RFC 7512.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ...errors import KeyMissing

SCHEME = "pkcs11:"
_PATH_ATTRIBUTES = frozenset({"token", "serial", "object", "id", "type"})
_QUERY_ATTRIBUTES = frozenset({"module-path", "pin-source", "pin-value"})
_VALUE_PATTERN = re.compile(r"(?:[A-Za-z0-9_.~:\[\]@!$'()*+,=&/?|-]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PKCS11Key:
    """A private key in a token."""

    module_path: str
    token: str | None = None
    """The label of the token."""
    serial: str | None = None
    """Of the token."""
    label: str | None = None
    """Of the key."""
    key_id: bytes | None = None
    pin: str | None = field(default=None, repr=False)


def parse_pkcs11_uri(uri: str) -> PKCS11Key:
    """Return the key that the URI names. A PIN in a file is read now.

    An attribute that is not known here is refused, because it could select another key.
    `module-path`, a token and a key are required. Raises: KeyMissing, without a value of the URI.
    Spec: RFC 7512 2.3, 2.4.
    """
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    if not uri.startswith(SCHEME):
        raise _build_error("It does not begin with pkcs11:.")
    attributes = dict(_iterate_attributes(path, ";", _PATH_ATTRIBUTES))
    options = dict(_iterate_attributes(query, "&", _QUERY_ATTRIBUTES))
    if attributes.pop("type", b"private") != b"private":
        raise _build_error("Its type is not private.")
    key_id = attributes.pop("id", None)
    try:
        texts = {name: value.decode() for name, value in (attributes | options).items()}
    except UnicodeDecodeError as error:
        raise _build_error("It is not UTF-8.") from error
    key = PKCS11Key(
        module_path=texts.get("module-path", ""),
        token=texts.get("token"),
        serial=texts.get("serial"),
        label=texts.get("object"),
        key_id=key_id,
        pin=_read_pin(texts),
    )
    if (
        not key.module_path.startswith("/")
        or not (key.token or key.serial)
        or not (key.label or key.key_id)
    ):
        raise _build_error(
            "It lacks an absolute module-path, the token, or the object or id of the key."
        )
    return key


def _iterate_attributes(
    text: str, separator: str, known: frozenset[str]
) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name not in known or not equals or name in seen or not _VALUE_PATTERN.fullmatch(value):
            raise _build_error("An attribute is not known, not valid or repeated.")
        seen.add(name)
        yield name, unquote_to_bytes(value)


def _read_pin(options: dict[str, str]) -> str | None:
    source = options.get("pin-source")
    if source is None:
        return options.get("pin-value")
    path = source.removeprefix("file:").removeprefix("//")
    if "pin-value" in options or not path.startswith("/"):
        raise _build_error("Its PIN is given twice, or pin-source is no file.")
    try:
        return Path(path).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _build_error("The file of its PIN can't be read.") from error


def _build_error(reason: str) -> KeyMissing:
    return KeyMissing(f"PHI_OIDC['KEYS']['audit_signing'] is no usable PKCS#11 URI. {reason}")
