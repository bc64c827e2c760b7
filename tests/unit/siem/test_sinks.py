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
from django_phi_oidc.config.sinks import parse_sink
from django_phi_oidc.errors import TransportError, TransportTimeout
from django_phi_oidc.siem.http_protocol import SendResult
from django_phi_oidc.siem.sinks import create_sink, end_stream
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


def test_file_sink_appends_lines_that_only_the_owner_reads(file: Path, items: list[LogItem]) -> None:
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


def test_file_sink_follows_a_file_that_was_rotated_away(file: Path, items: list[LogItem]) -> None:
    raw = {"type": "file", "path": file}
    send(raw, items[:2])
    file.rename(file.with_suffix(".1"))
    send(raw, items[2:])
    assert indexes(file.read_text().splitlines()) == [2, 3]


def test_file_sink_that_cannot_write_has_delivered_nothing(tmp_path: Path, items: list[LogItem]) -> None:
    for path in (tmp_path / "missing" / "audit.log", tmp_path):
        assert send({"type": "file", "path": path}, items) == SendResult(accepted=0, fault="file_unwritable")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_file_sink_on_a_full_disk_has_delivered_nothing(items: list[LogItem]) -> None:
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
def test_sink_tells_nothing_to_whom_it_cannot_verify(
    kind: str, wrong: str, authority: CertificateAuthority, items: list[LogItem], tmp_path: Path
) -> None:
    context = authority.create_server_context(
        "other.example" if wrong == "another name" else "127.0.0.1", expired=wrong == "expired"
    )
    bundles = {"another CA": create_certificate_authority(tmp_path, "others").certificate_path, "the system's CAs": ""}
    with listening(kind, context) as (server, raw):
        answer = send({**raw, "ca_bundle": bundles.get(wrong, authority.certificate_path)}, items)
        assert answer == SendResult(accepted=0, fault="transport_tls")
        assert taken(server) == 0


@kinds
def test_sink_does_not_speak_an_old_tls(kind: str, authority: CertificateAuthority, items: list[LogItem]) -> None:
    context = authority.create_server_context("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with listening(kind, context) as (server, raw):
        assert send({**raw, "ca_bundle": authority.certificate_path}, items).accepted == 0
        assert taken(server) == 0


@kinds
def test_sink_with_a_file_that_is_no_certificate_delivers_nothing(kind: str, items: list[LogItem], file: Path) -> None:
    file.write_text("no PEM")
    raw = {"syslog": {"host": "127.0.0.1"}, "https": {"url": "https://127.0.0.1:9/"}}[kind]
    for option in ("ca_bundle", "client_certificate"):
        for path in (file, file.with_suffix(".missing")):
            answer = send({"type": kind, **raw, option: str(path)}, items)
            assert answer == SendResult(accepted=0, fault="transport_tls")


@kinds
def test_sink_shows_its_own_certificate_to_a_collector_that_asks(
    kind: str, authority: CertificateAuthority, items: list[LogItem]
) -> None:
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
    """Return a PEM file of a certificate that is good for clients, and of its key."""
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
def test_syslog_sink_counts_nothing_of_a_connection_that_ended_badly(
    fault: str, tls: bool, authority: CertificateAuthority, items: list[LogItem]
) -> None:
    with syslog_server(authority.create_server_context("127.0.0.1") if tls else None) as server:
        server.fault = fault
        raw = {"type": "syslog", "host": "127.0.0.1", "port": server.port, "ca_bundle": authority.certificate_path}
        started = time.monotonic()
        answer = send({**raw, "tls": tls}, items * 200, deadline=0.5)
        assert answer.accepted == 0
        assert answer.fault in ("transport_timeout", "transport_unreachable")
        assert time.monotonic() - started < 3


def test_end_stream_of_a_collector_that_ended_in_order_before_it_had_read_all_raises() -> None:
    """The end of its stream comes first, and looks like that of one that has read all; the reset comes behind it."""
    for _ in range(20):
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            client.settimeout(3)
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            client.sendall(b"first")
            assert server.recv(10) == b"first"
            server.close()
            with pytest.raises((OSError, TransportError)):  # noqa: PT012 -- whichever of the two is first to see it
                client.sendall(b"second")
                end_stream(client, monotonic_deadline=time.monotonic() + 3)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't show the state of a connection")
def test_end_stream_waits_until_the_other_machine_has_taken_all() -> None:
    """The collector's end of stream is there at once, while most of ours has not left this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(3)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.shutdown(socket.SHUT_WR)
            client.sendall(b"x" * 200_000)
            with pytest.raises(TransportTimeout):
                end_stream(client, monotonic_deadline=time.monotonic() + 0.2)


def test_end_stream_of_a_collector_that_read_all_returns() -> None:
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
    told = (headers["authorization"], headers["x-source"], headers["content-type"])
    assert told == ("Splunk from-a-file", "portal", "application/x-ndjson")
    assert indexes(server.bodies[0].decode().splitlines()) == [0, 1, 2, 3]


def test_https_sink_reads_a_secret_anew_for_each_request(
    authority: CertificateAuthority, items: list[LogItem], file: Path
) -> None:
    with https(authority, headers={"Authorization": file}) as (server, raw):
        sink = create_sink(parse_sink("siem", raw), hostname="s")
        for secret in ("one", "two"):
            file.write_text(secret)
            sink.send(items, timeout_seconds=3)
        assert [headers["authorization"] for headers in server.requests] == ["one", "two"]


@pytest.mark.parametrize("content", [None, "", "two\nlines", "ü"])
def test_https_sink_without_its_secret_asks_nobody(
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


@pytest.mark.parametrize("chosen", ["json", "fhir"])
@pytest.mark.parametrize(("status", "slowly"), STATUSES.values(), ids=STATUSES)
def test_https_sink_that_gets_another_status_has_delivered_nothing(
    authority: CertificateAuthority, items: list[LogItem], chosen: str, status: int, slowly: bool
) -> None:
    with https(authority, format=chosen) as (server, raw):
        server.fault = status
        assert send(raw, items) == SendResult(accepted=0, fault=f"http_{status}", needs_operator=slowly)


def test_https_sink_passes_on_how_long_it_is_asked_to_wait(
    authority: CertificateAuthority, items: list[LogItem]
) -> None:
    with https(authority) as (server, raw):
        server.fault, server.retry_after = 429, "120"
        asked = send(raw, items).retry_after
        assert asked is not None
        assert asked.total_seconds() == 120


@pytest.mark.parametrize("status", [301, 307])
def test_https_sink_follows_no_redirect(authority: CertificateAuthority, items: list[LogItem], status: int) -> None:
    with https(authority) as (server, raw):
        server.fault = status
        assert send(raw, items) == SendResult(accepted=0, fault="transport_redirect", needs_operator=True)
        assert len(server.requests) == 1


@pytest.mark.parametrize(("fault", "told"), [("cut", "unreachable"), ("lost", "unreachable"), ("hang", "timeout")])
def test_https_sink_without_an_answer_has_delivered_nothing(
    authority: CertificateAuthority, items: list[LogItem], fault: str, told: str
) -> None:
    with https(authority) as (server, raw):
        server.fault = fault
        assert send(raw, items, deadline=0.4) == SendResult(accepted=0, fault=f"transport_{told}")


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


def test_https_sink_with_another_answer_than_a_bundle_has_delivered_nothing(
    authority: CertificateAuthority, items: list[LogItem]
) -> None:
    with https(authority, format="fhir") as (server, raw):
        server.fault = "garbage"
        assert send(raw, items) == SendResult(accepted=0, fault="response_invalid")


def test_https_sink_with_a_part_taken_says_how_many_before_the_first_that_was_not(
    authority: CertificateAuthority, items: list[LogItem]
) -> None:
    with https(authority, format="fhir") as (server, raw):
        server.fault = "half"
        assert send(raw, items) == SendResult(accepted=3, fault="http_422", needs_operator=True)


def test_sinks_leave_no_descriptor_open(authority: CertificateAuthority, items: list[LogItem]) -> None:
    def open_ones() -> int:
        return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0

    with https(authority) as (server, raw):
        send(raw, items)
        before = open_ones()
        for fault in ("", "cut", "lost", 500):
            server.fault = fault
            for _ in range(3):
                send(raw, items)
        assert open_ones() <= before + 2
