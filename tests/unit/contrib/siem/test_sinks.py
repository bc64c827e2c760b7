import json
import os
import socket
import ssl
import stat
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from django_phi_oidc.audit.formats.items import LogItem, SealedEvent
from django_phi_oidc.contrib.siem.declaration import parse_sink
from django_phi_oidc.contrib.siem.http_protocol import SendResult
from django_phi_oidc.contrib.siem.sinks import create_sink, end_stream
from django_phi_oidc.errors import Code, TransportError
from tests.support.error_codes import raises
from tests.support.sealed_events import NOW, digest, finished
from tests.support.siem_collectors import Collector, SyslogServer, collector, syslog_server
from tests.support.tls import CertificateAuthority, create_certificate_authority


@pytest.fixture
def items() -> list[LogItem]:
    return [
        SealedEvent(leaf_index=n, leaf_hash=digest(str(n)), authenticated_event=finished(now=NOW)) for n in range(4)
    ]


def send(raw: dict[str, Any], items: list[LogItem], *, deadline: float = 3.0) -> SendResult:
    return create_sink(parse_sink("siem", raw), hostname="portal-1").send(items, timeout_seconds=deadline)


def indexes(lines: list[str]) -> list[int]:
    return [json.loads(line)["leaf_index"] for line in lines]


# Files


def test_file_sink_appends_lines_to_a_file_readable_by_its_owner_only(file: Path, items: list[LogItem]) -> None:
    raw = {"type": "file", "path": file}
    assert send(raw, items[:2]) == SendResult(accepted=2)
    assert send(raw, items[2:]) == SendResult(accepted=2)
    assert indexes(file.read_text().splitlines()) == [0, 1, 2, 3]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_file_sink_ends_a_line_that_a_crash_cut_off(file: Path, items: list[LogItem]) -> None:
    file.write_text('{"leaf_index":0}\n{"leaf_in')
    send({"type": "file", "path": file}, items[1:])
    assert file.read_text().splitlines()[:2] == ['{"leaf_index":0}', '{"leaf_in']
    assert indexes(file.read_text().splitlines()[2:]) == [1, 2, 3]


def test_file_sink_creates_a_new_file_after_rotation(file: Path, items: list[LogItem]) -> None:
    raw = {"type": "file", "path": file}
    send(raw, items[:2])
    file.rename(file.with_suffix(".1"))
    send(raw, items[2:])
    assert indexes(file.read_text().splitlines()) == [2, 3]


def test_unwritable_file_accepts_nothing(tmp_path: Path, items: list[LogItem]) -> None:
    for path in (tmp_path / "missing" / "audit.log", tmp_path):
        assert send({"type": "file", "path": path}, items) == SendResult(accepted=0, fault="file_unwritable")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_accepts_nothing(items: list[LogItem]) -> None:
    assert send({"type": "file", "path": "/dev/full"}, items) == SendResult(accepted=0, fault="file_unwritable")


# TLS, the same for both


@contextmanager
def listening(kind: str, context: ssl.SSLContext) -> Iterator[tuple[SyslogServer | Collector, dict[str, Any]]]:
    if kind == "syslog":
        with syslog_server(context) as server:
            yield server, {"type": "syslog", "host": "127.0.0.1", "port": server.port}
    else:
        with collector(context) as server:
            yield server, {"type": "https", "url": f"https://127.0.0.1:{server.port}/"}


def taken(server: SyslogServer | Collector) -> int:
    return len(server.messages if isinstance(server, SyslogServer) else server.bodies)


kinds = pytest.mark.parametrize("kind", ["syslog", "https"])


@kinds
def test_sink_with_the_collectors_ca_delivers(kind: str, authority: CertificateAuthority, items: list[LogItem]) -> None:
    with listening(kind, authority.create_server_context("127.0.0.1")) as (server, raw):
        assert send({**raw, "ca_bundle": authority.certificate_path}, items) == SendResult(accepted=4)
        assert taken(server)


@kinds
@pytest.mark.parametrize("wrong", ["another CA", "the system's CAs", "another name", "expired"])
def test_sink_sends_nothing_to_an_unverified_collector(
    kind: str, wrong: str, authority: CertificateAuthority, items: list[LogItem], tmp_path: Path
) -> None:
    context = authority.create_server_context(
        "other.example" if wrong == "another name" else "127.0.0.1", expired=wrong == "expired"
    )
    bundles = {"another CA": create_certificate_authority(tmp_path, "others").certificate_path, "the system's CAs": ""}
    with listening(kind, context) as (server, raw):
        result = send({**raw, "ca_bundle": bundles.get(wrong, authority.certificate_path)}, items)
        assert result == SendResult(accepted=0, fault="transport_tls")
        assert taken(server) == 0


@kinds
def test_sink_refuses_old_tls_versions(kind: str, authority: CertificateAuthority, items: list[LogItem]) -> None:
    context = authority.create_server_context("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with listening(kind, context) as (server, raw):
        assert send({**raw, "ca_bundle": authority.certificate_path}, items).accepted == 0
        assert taken(server) == 0


@kinds
def test_g13_sink_refuses_a_suite_of_tls_1_2_in_cbc_mode(
    kind: str, authority: CertificateAuthority, items: list[LogItem]
) -> None:
    for suite, accepted in (("ECDHE-ECDSA-AES128-SHA256", 0), ("ECDHE-ECDSA-AES128-GCM-SHA256", 4)):
        context = authority.create_server_context("127.0.0.1")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(suite)
        with listening(kind, context) as (server, raw):
            assert send({**raw, "ca_bundle": authority.certificate_path}, items).accepted == accepted
            assert bool(taken(server)) is bool(accepted)


@kinds
def test_invalid_certificate_file_accepts_nothing(kind: str, items: list[LogItem], file: Path) -> None:
    file.write_text("no PEM")
    raw = {"syslog": {"host": "127.0.0.1"}, "https": {"url": "https://127.0.0.1:9/"}}[kind]
    for option in ("ca_bundle", "client_certificate"):
        for path in (file, file.with_suffix(".missing")):
            result = send({"type": kind, **raw, option: str(path)}, items)
            assert result == SendResult(accepted=0, fault="transport_tls")


@kinds
def test_sink_presents_its_client_certificate(kind: str, authority: CertificateAuthority, items: list[LogItem]) -> None:
    context = authority.create_server_context("127.0.0.1")
    context.load_verify_locations(authority.certificate_path)
    context.verify_mode = ssl.CERT_REQUIRED
    client = client_certificate(authority)
    with listening(kind, context) as (server, raw):
        raw |= {"ca_bundle": authority.certificate_path}
        assert send(raw, items).accepted == 0
        assert taken(server) == 0
        assert send({**raw, "client_certificate": client}, items) == SendResult(accepted=4)


def client_certificate(authority: CertificateAuthority) -> str:
    """Return a PEM file with a client certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portal")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(authority.certificate.not_valid_before_utc)
        .not_valid_after(authority.certificate.not_valid_after_utc)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    path = authority.directory / "client.pem"
    unlocked = serialization.NoEncryption()
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unlocked)
    )
    return str(path)


# Syslog


def test_syslog_sink_on_loopback_without_tls_delivers(items: list[LogItem]) -> None:
    with syslog_server(None) as server:
        raw = {"type": "syslog", "host": "127.0.0.1", "port": server.port, "tls": False, "format": "cef"}
        assert send(raw, items) == SendResult(accepted=4)
        assert [message.split(b"] ")[1][:6] for message in server.messages] == [b"CEF:0|"] * 4


@pytest.mark.parametrize("fault", ["cut", "reset", "hang", "silent"])
@pytest.mark.parametrize("tls", [True, False])
def test_syslog_connection_that_ends_abnormally_accepts_nothing(
    fault: str, tls: bool, authority: CertificateAuthority, items: list[LogItem]
) -> None:
    with syslog_server(authority.create_server_context("127.0.0.1") if tls else None) as server:
        server.fault = fault
        raw = {"type": "syslog", "host": "127.0.0.1", "port": server.port, "ca_bundle": authority.certificate_path}
        started = time.monotonic()
        result = send({**raw, "tls": tls}, items * 200, deadline=0.5)
        assert result.accepted == 0
        assert result.fault in ("transport_timeout", "transport_unreachable")
        assert time.monotonic() - started < 3


def test_end_stream_raises_if_the_collector_ends_before_it_has_read_all() -> None:
    """The end of its stream arrives first, as if it had read all; the reset follows."""
    for _ in range(20):
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            client.settimeout(3)
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            client.sendall(b"first")
            assert server.recv(10) == b"first"
            server.close()
            with raises((OSError, TransportError)):
                client.sendall(b"second")
                end_stream(client, monotonic_deadline=time.monotonic() + 3)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not report the state of a connection")
def test_end_stream_waits_until_the_peer_has_acknowledged_all() -> None:
    """The collector ends its stream at once, while most bytes are still in the local send buffer."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(3)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.shutdown(socket.SHUT_WR)
            client.sendall(b"x" * 200_000)
            with raises(Code.TRANSPORT_TIMEOUT):
                end_stream(client, monotonic_deadline=time.monotonic() + 0.2)


def test_end_stream_returns_after_the_collector_has_read_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.settimeout(3)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        received = bytearray()

        def read_all() -> None:
            with server:
                while chunk := server.recv(7):
                    received.extend(chunk)

        thread = threading.Thread(target=read_all)
        thread.start()
        client.sendall(b"x" * 1000)
        end_stream(client, monotonic_deadline=time.monotonic() + 3)
        thread.join()
        assert len(received) == 1000


# HTTPS


@contextmanager
def https(authority: CertificateAuthority, **options: Any) -> Iterator[tuple[Collector, dict[str, Any]]]:
    with collector(authority.create_server_context("127.0.0.1")) as server:
        url = f"https://127.0.0.1:{server.port}/ingest"
        yield server, {"type": "https", "url": url, "ca_bundle": authority.certificate_path, **options}


def test_https_sink_posts_lines_with_the_declared_headers(
    authority: CertificateAuthority, items: list[LogItem], file: Path
) -> None:
    file.write_text("Splunk from-a-file\n")
    with https(authority, headers={"Authorization": file, "X-Source": "portal"}) as (server, raw):
        assert send(raw, items) == SendResult(accepted=4)
        (headers,) = server.requests
    values = (headers["authorization"], headers["x-source"], headers["content-type"])
    assert values == ("Splunk from-a-file", "portal", "application/x-ndjson")
    assert indexes(server.bodies[0].decode().splitlines()) == [0, 1, 2, 3]


def test_https_sink_reads_a_header_file_for_each_request(
    authority: CertificateAuthority, items: list[LogItem], file: Path
) -> None:
    with https(authority, headers={"Authorization": file}) as (server, raw):
        sink = create_sink(parse_sink("siem", raw), hostname="s")
        for secret in ("one", "two"):
            file.write_text(secret)
            sink.send(items, timeout_seconds=3)
        assert [headers["authorization"] for headers in server.requests] == ["one", "two"]


@pytest.mark.parametrize("content", [None, "", "two\nlines", "ü"])
def test_https_sink_without_its_header_file_sends_no_request(
    authority: CertificateAuthority, items: list[LogItem], file: Path, content: str | None
) -> None:
    if content is not None:
        file.write_text(content)
    with https(authority, headers={"Authorization": file}) as (server, raw):
        assert send(raw, items) == SendResult(accepted=0, fault="header_unreadable")
        assert server.requests == []


STATUSES = {
    "refused": (400, True),
    "unauthorized": (401, True),
    "too large": (413, True),
    "request timeout": (408, False),
    "too many": (429, False),
    "server error": (500, False),
    "unavailable": (503, False),
}


@pytest.mark.parametrize("log_format", ["json", "fhir"])
@pytest.mark.parametrize(("status", "needs_operator"), STATUSES.values(), ids=STATUSES)
def test_https_error_status_accepts_nothing(
    authority: CertificateAuthority, items: list[LogItem], log_format: str, status: int, needs_operator: bool
) -> None:
    with https(authority, format=log_format) as (server, raw):
        server.fault = status
        assert send(raw, items) == SendResult(accepted=0, fault=f"http_{status}", needs_operator=needs_operator)


def test_https_sink_returns_retry_after(authority: CertificateAuthority, items: list[LogItem]) -> None:
    with https(authority) as (server, raw):
        server.fault, server.retry_after = 429, "120"
        retry_after = send(raw, items).retry_after
        assert retry_after is not None
        assert retry_after.total_seconds() == 120


@pytest.mark.parametrize("status", [301, 307])
def test_https_sink_follows_no_redirect(authority: CertificateAuthority, items: list[LogItem], status: int) -> None:
    with https(authority) as (server, raw):
        server.fault = status
        assert send(raw, items) == SendResult(accepted=0, fault="transport_redirect", needs_operator=True)
        assert len(server.requests) == 1


def test_https_sink_accepts_an_encoded_response(authority: CertificateAuthority, items: list[LogItem]) -> None:
    with https(authority) as (server, raw):
        server.headers = {"Content-Encoding": "gzip"}
        assert send(raw, items) == SendResult(accepted=4)


@pytest.mark.parametrize(("fault", "code"), [("cut", "unreachable"), ("lost", "unreachable"), ("hang", "timeout")])
def test_https_sink_without_a_response_accepts_nothing(
    authority: CertificateAuthority, items: list[LogItem], fault: str, code: str
) -> None:
    with https(authority) as (server, raw):
        server.fault = fault
        assert send(raw, items, deadline=0.4) == SendResult(accepted=0, fault=f"transport_{code}")


def test_https_sink_posts_one_batch_to_a_fhir_server(authority: CertificateAuthority, items: list[LogItem]) -> None:
    with https(authority, format="fhir") as (server, raw):
        assert send(raw, items) == SendResult(accepted=4)
        (headers,) = server.requests
    bundle = json.loads(server.bodies[0])
    assert (bundle["resourceType"], bundle["type"], headers["content-type"]) == (
        "Bundle",
        "batch",
        "application/fhir+json",
    )
    assert [entry["request"] for entry in bundle["entry"]] == [{"method": "POST", "url": "AuditEvent"}] * 4
    assert headers["prefer"] == "return=minimal"


def test_fhir_response_without_a_bundle_accepts_nothing(authority: CertificateAuthority, items: list[LogItem]) -> None:
    with https(authority, format="fhir") as (server, raw):
        server.fault = "garbage"
        assert send(raw, items) == SendResult(accepted=0, fault="response_invalid")


def test_fhir_batch_counts_entries_before_the_first_refused_one(
    authority: CertificateAuthority, items: list[LogItem]
) -> None:
    with https(authority, format="fhir") as (server, raw):
        server.fault = "half"
        assert send(raw, items) == SendResult(accepted=3, fault="http_422", needs_operator=True)


def test_sinks_leave_no_file_descriptor_open(authority: CertificateAuthority, items: list[LogItem]) -> None:
    def count_descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0

    with https(authority) as (server, raw):
        send(raw, items)
        before = count_descriptors()
        for fault in ("", "cut", "lost", 500):
            server.fault = fault
            for _ in range(3):
                send(raw, items)
        assert count_descriptors() <= before + 2
