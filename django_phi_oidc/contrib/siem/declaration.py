"""The option `SIEM`: sinks, parsed into frozen values. No Django."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from ...audit.formats.items import LogFormat
from ...config.loopback import is_loopback
from ...config.option_grades import LATER, RARE
from ...config.option_parsers import (
    checked,
    fail,
    is_secure_url,
    mapping_of,
    parse_declaration,
    parse_mapping,
    parse_name,
    parse_raw,
    parse_string,
)

SinkType = Literal["syslog", "https", "file"]

_HEADER_NAME_PATTERN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""Spec: RFC 9110 5.1."""
_RESERVED_HEADERS = {
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "prefer",
}
_OPTIONS_BY_TYPE: Mapping[str, frozenset[str]] = {
    "syslog": frozenset({"host", "port", "tls", "ca_bundle", "client_certificate"}),
    "https": frozenset({"url", "headers", "ca_bundle", "client_certificate"}),
    "file": frozenset({"path"}),
}
"""The options of each type in addition to `type`, `format` and `lag_alert`."""
_REQUIRED_OPTION_BY_TYPE = {"syslog": "host", "https": "url", "file": "path"}
_FORMATS_BY_TYPE: Mapping[str, tuple[LogFormat, ...]] = {
    "syslog": ("json", "ocsf", "cef"),
    "https": ("json", "ocsf", "cef", "fhir"),
    "file": ("json", "ocsf", "cef", "fhir"),
}


def is_valid_header_value(value: Any) -> bool:
    """Say whether value can be a header's: a line break in it would start another header."""
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()


_parse_text = checked(
    lambda path, value: parse_string(path, str(value) if isinstance(value, Path) else value),
    str.isprintable,
    "must be printable",
)
_parse_port = checked(
    parse_raw, lambda n: type(n) is int and 0 < n < 65536, "must be a number from 1 to 65535"
)


def _parse_headers(path: str, value: Any) -> dict[str, str | Path]:
    for header, content in parse_mapping(path, value).items():
        if not isinstance(header, str) or not _HEADER_NAME_PATTERN.fullmatch(header):
            fail(path, "has a name that no header can have")
        if header.lower() in _RESERVED_HEADERS:
            fail(path, "has a header that each delivery sets itself")
        if not isinstance(content, Path) and not is_valid_header_value(content):
            fail(f"{path}[{header!r}]", "must be a string of printable ASCII, or a Path")
    return dict(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkDeclaration:
    """A collector that the audit log is delivered to."""

    name: str
    type: SinkType = field(metadata=LATER)
    """`syslog`, `https` or `file`."""
    format: LogFormat = field(default="json", metadata=LATER)
    """`json`, `ocsf`, `cef`, or `fhir` (not with syslog)."""
    host: Annotated[str, _parse_text] = field(default="", metadata=LATER)
    """`syslog`: the collector. Default: required."""
    port: Annotated[int, _parse_port] = field(default=6514, metadata=LATER)
    """`syslog`: the collector's port."""
    tls: bool = field(default=True, metadata=RARE)
    """`syslog`: False, with warning W016, for loopback addresses only."""
    # some collectors expect a token in the query
    url: Annotated[str, _parse_text] = field(default="", repr=False, metadata=LATER)
    """`https`: the collector, or with `fhir` the base of a FHIR server; http, with warning W016, on
    loopback only.
    Default: required.
    """
    headers: Annotated[Mapping[str, str | Path], _parse_headers] = field(
        default_factory=dict, repr=False, metadata=LATER
    )
    """`https`: name → string, or `pathlib.Path` of a file that each request reads."""
    ca_bundle: Annotated[str, _parse_text] = field(default="", metadata=LATER)
    """`syslog`, `https`: file of the CA that signed the collector's certificate. Default: system.
    """
    client_certificate: Annotated[str, _parse_text] = field(default="", metadata=RARE)
    """`syslog`, `https`: PEM file of the client certificate and its key, without a password."""
    path: Annotated[str, _parse_text] = field(default="", metadata=LATER)
    """`file`: absolute path, created with mode 0600; its folder must exist. Default: required."""
    lag_alert: timedelta = field(default=timedelta(minutes=5), metadata=LATER)
    """How long a sealed entry may wait before an alert is raised."""

    @property
    def is_plaintext(self) -> bool:
        """Whether the connection, to a loopback address, has no TLS."""
        return (self.type == "syslog" and not self.tls) or self.url.startswith("http:")


def parse_sink(name: str, raw: Any) -> SinkDeclaration:
    """Return the sink that raw declares. Raises: DeclarationInvalid with all mistakes, and no
    value.
    """
    path = f"SIEM[{name!r}]"
    parse_name(path, name)
    sink_type: Any = parse_mapping(path, raw).get("type")
    if sink_type not in get_args(SinkType):
        fail(f"{path}['type']", f"must be one of {', '.join(get_args(SinkType))}")
    known = _OPTIONS_BY_TYPE[sink_type] | {"type", "format", "lag_alert"}
    return parse_declaration(
        SinkDeclaration, path, raw, known=known, list_faults=_list_sink_faults, name=name
    )


@dataclass(frozen=True, kw_only=True)
class SIEMOptions:
    """The options of the delivery of the audit log."""

    SIEM: Annotated[Mapping[str, SinkDeclaration], mapping_of(parse_sink)] = field(
        default_factory=dict, metadata=LATER
    )
    """Name → [sink](#a-sink): where [the audit log is delivered to](../how-to/siem.md). Default:
    none.
    """


def _list_sink_faults(sink: SinkDeclaration) -> Iterator[str]:
    if not getattr(sink, _REQUIRED_OPTION_BY_TYPE[sink.type]):
        yield f" lacks {_REQUIRED_OPTION_BY_TYPE[sink.type]}."
    if sink.format not in _FORMATS_BY_TYPE[sink.type]:
        yield f"['format'] must be one of {', '.join(_FORMATS_BY_TYPE[sink.type])}."
    if not sink.tls and not is_loopback(sink.host):
        yield "['tls'] may be False only for a loopback host."
    if sink.url and not is_secure_url(sink.url):
        yield "['url'] must be https (http only for loopback), without user or fragment."
    if sink.path and not Path(sink.path).is_absolute():
        yield "['path'] must be absolute."
