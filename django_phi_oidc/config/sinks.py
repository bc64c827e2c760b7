"""What a project declares of a sink, parsed once into a frozen value. No Django."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from ..errors import DeclarationInvalid
from .providers import is_loopback_http

SinkType = Literal["syslog", "https", "file"]
LogFormat = Literal["json", "ocsf", "cef", "fhir"]

_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEADER_NAME_PATTERN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A header's name. Spec: RFC 9110 5.1."""
_RESERVED_HEADERS = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "prefer"}
)
_OPTIONS_BY_TYPE: Mapping[str, frozenset[str]] = {
    "syslog": frozenset({"host", "port", "tls", "ca_bundle", "client_certificate"}),
    "https": frozenset({"url", "headers", "ca_bundle", "client_certificate"}),
    "file": frozenset({"path"}),
}
"""What each type has beside `type`, `format` and `lag_alert`."""
_REQUIRED_OPTION_BY_TYPE = {"syslog": "host", "https": "url", "file": "path"}
_FORMATS_BY_TYPE: Mapping[str, tuple[LogFormat, ...]] = {
    "syslog": ("json", "ocsf", "cef"),
    "https": ("json", "ocsf", "cef", "fhir"),
    "file": ("json", "ocsf", "cef", "fhir"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkDeclaration:
    """One place outside that the log is delivered to."""

    name: str
    type: SinkType
    """`syslog`, `https` or `file`."""
    format: LogFormat = "json"
    """`json`, `ocsf`, `cef`, or `fhir`, which syslog does not take."""
    host: str = ""
    """`syslog`: the collector. Default: required."""
    port: int = 6514
    """`syslog`: the collector's."""
    tls: bool = True
    """`syslog`: False, with warning W016, for a loopback address alone."""
    url: str = field(default="", repr=False)  # some collectors take a token in its query
    """`https`: the collector, or with `fhir` the base of a FHIR server; http, with warning W016, on loopback alone.
    Default: required."""
    headers: Mapping[str, str | Path] = field(default_factory=dict, repr=False)
    """`https`: name → string, or `pathlib.Path` of a file that is read, and stripped, for each request."""
    ca_bundle: str = ""
    """`syslog`, `https`: file of the CA that signed the collector's certificate; nothing turns verification off.
    Default: system."""
    client_certificate: str = ""
    """`syslog`, `https`: PEM file of our certificate and its key, without a password."""
    path: str = ""
    """`file`: absolute; made with mode 0600, its folder must exist. Default: required."""
    lag_alert: timedelta = timedelta(minutes=5)
    """timedelta or seconds: how long something sealed may wait before there is an alert."""

    @property
    def is_plaintext(self) -> bool:
        """Whether it goes over the network, by loopback, without TLS."""
        return (self.type == "syslog" and not self.tls) or self.url.startswith("http:")


def parse_sink(name: str, raw: Mapping[str, Any]) -> SinkDeclaration:
    """Return the sink that raw declares.

    Raises: DeclarationInvalid, which names the option and never its value.
    """
    _validate_name(name)
    where = f"SINKS[{name!r}]"
    values = _validate_options(where, raw)
    for key in ("host", "url", "ca_bundle", "client_certificate", "path"):
        if key in values:
            values[key] = _parse_text(f"{where}[{key!r}]", values[key])
    if not values.get(_REQUIRED_OPTION_BY_TYPE[values["type"]]):
        raise DeclarationInvalid(f"{where} lacks {_REQUIRED_OPTION_BY_TYPE[values['type']]}.")
    if "headers" in values:
        values["headers"] = _parse_headers(f"{where}['headers']", values["headers"])
    if "lag_alert" in values:
        values["lag_alert"] = _parse_duration(f"{where}['lag_alert']", values["lag_alert"])
    sink = SinkDeclaration(name=name, **values)
    _validate_addresses(where, sink)
    return sink


def is_loopback(host: str) -> bool:
    """Say whether host is localhost, in 127.0.0.0/8, or ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _validate_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME_PATTERN.fullmatch(name):
        raise DeclarationInvalid("SINKS: a name is 1 to 64 letters and digits, and . _ - after the first of them.")


def _validate_options(option_path: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise DeclarationInvalid(f"{option_path} must be a dictionary.")
    if raw.get("type") not in get_args(SinkType):
        raise DeclarationInvalid(f"{option_path}['type'] must be one of {', '.join(get_args(SinkType))}.")
    known = _OPTIONS_BY_TYPE[raw["type"]] | {"type", "format", "lag_alert"}
    if unknown := sorted(str(key) for key in raw if key not in known):
        raise DeclarationInvalid(f"{option_path}: a sink of this type has no option {', '.join(unknown)}.")
    if raw.get("format", "json") not in _FORMATS_BY_TYPE[raw["type"]]:
        raise DeclarationInvalid(f"{option_path}['format'] must be one of {', '.join(_FORMATS_BY_TYPE[raw['type']])}.")
    return dict(raw)


def _validate_addresses(option_path: str, sink: SinkDeclaration) -> None:
    if type(sink.port) is not int or not 0 < sink.port < 65536:
        raise DeclarationInvalid(f"{option_path}['port'] must be a number from 1 to 65535.")
    if type(sink.tls) is not bool:
        raise DeclarationInvalid(f"{option_path}['tls'] must be True or False.")
    if not sink.tls and not is_loopback(sink.host):
        raise DeclarationInvalid(f"{option_path}['tls'] may be False for a loopback host alone.")
    if sink.type == "https" and not _is_valid_url(sink.url):
        raise DeclarationInvalid(
            f"{option_path}['url'] must be https (http for loopback alone), without user or fragment."
        )
    if sink.type == "file" and not Path(sink.path).is_absolute():
        raise DeclarationInvalid(f"{option_path}['path'] must be absolute.")


def _is_valid_url(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or set(" #@").intersection(url):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and (parts.scheme == "https" or is_loopback_http(url))
    except ValueError:
        return False


def _parse_text(option_path: str, value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value.isprintable():
        raise DeclarationInvalid(f"{option_path} must be a string.")
    return value


def _parse_headers(option_path: str, value: Any) -> dict[str, str | Path]:
    if not isinstance(value, Mapping):
        raise DeclarationInvalid(f"{option_path} must be a dictionary.")
    for header, content in value.items():
        if (
            not isinstance(header, str)
            or not _HEADER_NAME_PATTERN.fullmatch(header)
            or header.lower() in _RESERVED_HEADERS
        ):
            raise DeclarationInvalid(f"{option_path}: a name is no header's, or one of a header that is ours to send.")
        if not isinstance(content, Path) and not is_valid_header_value(content):
            raise DeclarationInvalid(f"{option_path}[{header!r}] must be a string of printable ASCII, or a Path.")
    return dict(value)


def is_valid_header_value(value: Any) -> bool:
    """Say whether value can be a header's: a break of the line in it would begin another header."""
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()


def _parse_duration(option_path: str, value: Any) -> timedelta:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            value = timedelta(seconds=value)
        except (ValueError, OverflowError) as error:
            raise DeclarationInvalid(f"{option_path} is no number of seconds.") from error
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise DeclarationInvalid(f"{option_path} must be a positive timedelta or number of seconds.")
    return value
