"""A sink of `SIEM`: valid and invalid declarations."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.config.loopback import is_loopback
from django_phi_oidc.contrib.siem.declaration import parse_sink
from django_phi_oidc.errors import DeclarationInvalid

SYSLOG = {"type": "syslog", "host": "siem.example"}
HTTPS = {"type": "https", "url": "https://siem.example:8443/ingest?source=portal"}
FILE = {"type": "file", "path": "/var/log/portal/audit.log"}
ACCEPTED: dict[str, dict[str, Any]] = {
    "syslog": SYSLOG,
    "syslog cef": {**SYSLOG, "format": "cef", "port": 1, "ca_bundle": "/ca.pem", "client_certificate": "/client.pem"},
    "plain syslog on loopback": {**SYSLOG, "host": "127.0.0.1", "tls": False},
    "plain syslog on localhost": {**SYSLOG, "host": "localhost", "tls": False},
    "plain syslog on ::1": {**SYSLOG, "host": "::1", "tls": False},
    "https": HTTPS,
    "https fhir": {**HTTPS, "format": "fhir", "headers": {"Authorization": "Bearer x", "X-Key": Path("/key")}},
    "http on loopback": {**HTTPS, "url": "http://127.0.0.1:8088/x"},
    "file": FILE,
    "file fhir": {**FILE, "format": "fhir", "lag_alert": 60},
    "path as a Path": {**FILE, "path": Path("/a"), "lag_alert": timedelta(hours=1)},
}
REFUSED: dict[str, tuple[Any, str]] = {
    "no dictionary": ("syslog", "must be a dictionary"),
    "no type": ({"host": "siem.example"}, "['type']"),
    "unknown type": ({**SYSLOG, "type": "smoke"}, "['type']"),
    "no host": ({"type": "syslog"}, "lacks host"),
    "no url": ({"type": "https"}, "lacks url"),
    "no path": ({"type": "file"}, "lacks path"),
    "empty host": ({**SYSLOG, "host": ""}, "lacks host"),
    "option of another type": ({**SYSLOG, "url": "https://secret.example"}, "no option url"),
    "unknown option": ({**FILE, "colour": "red"}, "no option colour"),
    "fhir by syslog": ({**SYSLOG, "format": "fhir"}, "['format']"),
    "unknown format": ({**FILE, "format": "leef"}, "['format']"),
    "plain syslog": ({**SYSLOG, "tls": False}, "['tls']"),
    "plain syslog to a name like loopback": ({**SYSLOG, "host": "127.0.0.1.example", "tls": False}, "['tls']"),
    "tls that is no boolean": ({**SYSLOG, "host": "127.0.0.1", "tls": 0}, "['tls']"),
    "port 0": ({**SYSLOG, "port": 0}, "['port']"),
    "port too large": ({**SYSLOG, "port": 65536}, "['port']"),
    "port as text": ({**SYSLOG, "port": "6514"}, "['port']"),
    "port as a boolean": ({**SYSLOG, "port": True}, "['port']"),
    "host with a line break": ({**SYSLOG, "host": "a\nb"}, "['host']"),
    "ca_bundle as a number": ({**SYSLOG, "ca_bundle": 1}, "['ca_bundle']"),
    "plain http": ({**HTTPS, "url": "http://siem.example/"}, "['url']"),
    "ftp": ({**HTTPS, "url": "ftp://siem.example/"}, "['url']"),
    "password in the url": ({**HTTPS, "url": "https://u:secret@siem.example/"}, "['url']"),
    "fragment in the url": ({**HTTPS, "url": "https://siem.example/#x"}, "['url']"),
    "no host in the url": ({**HTTPS, "url": "https:///x"}, "['url']"),
    "port of the url": ({**HTTPS, "url": "https://siem.example:99999/"}, "['url']"),
    "headers as a list": ({**HTTPS, "headers": ["secret"]}, "['headers']"),
    "header with a line break": ({**HTTPS, "headers": {"X": "secret\r\nY: 1"}}, "['headers']['X']"),
    "name of a header with a space": ({**HTTPS, "headers": {"X secret": "1"}}, "['headers']"),
    "header that each delivery sets": ({**HTTPS, "headers": {"content-Type": "secret"}}, "['headers']"),
    "header as a number": ({**HTTPS, "headers": {"X": 1}}, "['headers']['X']"),
    "empty header": ({**HTTPS, "headers": {"X": ""}}, "['headers']['X']"),
    "relative path": ({**FILE, "path": "secret.log"}, "['path']"),
    "lag_alert 0": ({**FILE, "lag_alert": 0}, "['lag_alert']"),
    "lag_alert as text": ({**FILE, "lag_alert": "5 minutes"}, "['lag_alert']"),
    "lag_alert as a boolean": ({**FILE, "lag_alert": True}, "['lag_alert']"),
    "infinite lag_alert": ({**FILE, "lag_alert": float("inf")}, "['lag_alert']"),
}


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED)
def test_valid_sink_is_parsed(raw: dict[str, Any]) -> None:
    assert parse_sink("siem", raw).type == raw["type"]


@pytest.mark.parametrize(("raw", "named"), REFUSED.values(), ids=REFUSED)
def test_wrong_sink_is_refused_with_the_name_of_the_option(raw: Any, named: str) -> None:
    with pytest.raises(DeclarationInvalid) as refused:
        parse_sink("siem", raw)
    assert "SIEM['siem']" in str(refused.value)
    assert named in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 65, 7, None])
def test_invalid_name_is_refused(name: Any) -> None:
    with pytest.raises(DeclarationInvalid):
        parse_sink(name, SYSLOG)


def test_defaults() -> None:
    sink = parse_sink("a.b-c_1", SYSLOG)
    assert (sink.format, sink.port, sink.tls, sink.lag_alert) == ("json", 6514, True, timedelta(minutes=5))


def test_repr_contains_no_header() -> None:
    assert "Bearer" not in repr(parse_sink("siem", ACCEPTED["https fhir"]))


@pytest.mark.parametrize(
    ("name", "plain"), [("syslog", False), ("plain syslog on ::1", True), ("http on loopback", True)]
)
def test_sink_without_tls_is_plaintext(name: str, plain: bool) -> None:
    assert parse_sink("siem", ACCEPTED[name]).is_plaintext is plain


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.example", "", "::2", "0.0.0.0"])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
