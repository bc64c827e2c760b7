"""The sinks: syslog over TLS, HTTPS, a file. Each takes a batch within a time limit and returns a
result.

Every exchange uses a new connection, verifies certificates, and has one time limit for all of its
steps.
"""

import os
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ...audit.formats import item_to_line
from ...audit.formats.items import LogItem
from ...audit.formats.rfc5424 import build_frame
from ...errors import Code, TransportError
from ...http.connection_pool import TimedExchange, translate_error
from ...http.http_transport import create_ssl_context, send_on_new_connection
from ...http.transport import TransportRequest, TransportResponse
from .declaration import SinkDeclaration, is_valid_header_value
from .http_protocol import (
    SendResult,
    build_bundle_request,
    build_lines_request,
    process_bundle_response,
    process_lines_response,
)

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
"""A FHIR server may return the whole batch."""
_CHUNK_BYTES = 64 * 1024
_TCP_CLOSE = 7
"""TCP_CLOSE, the first byte of Linux's struct tcp_info."""
_POLL_SECONDS = 0.005


class _DeclaredSink:
    def __init__(self, declaration: SinkDeclaration, *, hostname: str) -> None:
        self._declaration = declaration
        self._hostname = hostname

    def _format_line(self, item: LogItem) -> str:
        return item_to_line(item, self._declaration.format, hostname=self._hostname)


class FileSink(_DeclaredSink):
    """A file that lines are appended to; accepted lines are on disk."""

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        """Append items. An incomplete last line, left by a crash, is ended first."""
        text = "".join(f"{self._format_line(item)}\n" for item in items)
        try:
            _append_to_file(Path(self._declaration.path), text.encode("utf-8"))
        except OSError:
            return SendResult(accepted=0, fault="file_unwritable")
        return SendResult(accepted=len(items))


class SyslogSink(_DeclaredSink):
    """A collector of syslog messages over TLS or, on loopback, plain TCP. Spec: RFC 5424, RFC 5425,
    RFC 6587 3.4.1.

    Syslog has no acknowledgement. A batch counts as delivered when the collector ended the stream
    in order after the portal did, and its host acknowledged every byte. This does not prove that
    the collector stored them.
    """

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        """Send items over one connection and wait until the collector has read all of it."""
        frames = b"".join(
            build_frame(item, self._format_line(item), hostname=self._hostname) for item in items
        )
        try:
            self._exchange(frames, timeout_seconds=timeout_seconds)
        except TransportError as error:
            return SendResult(accepted=0, fault=error.code)
        return SendResult(accepted=len(items))

    def _exchange(self, frames: bytes, *, timeout_seconds: float) -> None:
        declaration = self._declaration
        ends_at = time.monotonic() + timeout_seconds
        with TimedExchange(timeout_seconds) as exchange:
            try:
                context = None
                if declaration.tls:
                    context = build_ssl_context(declaration)
                with exchange.connect(declaration.host, declaration.port, ()) as connection:
                    if context is None:
                        connection.sendall(frames)
                        end_stream(connection, monotonic_deadline=ends_at)
                    else:
                        with context.wrap_socket(
                            connection, server_hostname=declaration.host
                        ) as tls_connection:
                            tls_connection.sendall(frames)
                            _end_tls_stream(tls_connection, monotonic_deadline=ends_at)
            except (OSError, ValueError) as error:
                if (
                    isinstance(error, ssl.SSLError)
                    and error.errno == ssl.SSL_ERROR_SYSCALL
                    and not exchange.is_expired
                ):
                    # A reset while writing, which ssl reports without a reason.
                    raise TransportError(
                        Code.TRANSPORT_UNREACHABLE, "The collector reset the connection."
                    ) from None
                raise translate_error(error, is_expired=exchange.is_expired) from None
            if exchange.is_expired:
                # The timeout closes the connection, which looks like the end of the collector's
                # stream.
                raise TransportError(Code.TRANSPORT_TIMEOUT)


class HTTPSSink(_DeclaredSink):
    """A line collector or a FHIR server over HTTPS. A 2xx status is an acknowledgement."""

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        """Post items in one request."""
        declaration = self._declaration
        try:
            headers = {}
            for name, value in declaration.headers.items():
                headers[name] = _read_header_value(value)
        except (OSError, ValueError):
            return SendResult(accepted=0, fault="header_unreadable")
        is_fhir = declaration.format == "fhir"
        if is_fhir:
            request = build_bundle_request(
                items, url=declaration.url, headers=headers, hostname=self._hostname
            )
        else:
            request = build_lines_request(
                items,
                url=declaration.url,
                log_format=declaration.format,
                headers=headers,
                hostname=self._hostname,
            )
        try:
            response = _post(request, declaration, timeout_seconds=timeout_seconds)
        except TransportError as error:
            return SendResult(
                accepted=0, fault=error.code, needs_operator=error.code is Code.TRANSPORT_REDIRECT
            )

        if is_fhir:
            process_response = process_bundle_response
        else:
            process_response = process_lines_response

        return process_response(response, count=len(items))


def create_sink(
    declaration: SinkDeclaration, *, hostname: str
) -> FileSink | SyslogSink | HTTPSSink:
    """Return the sink of that declaration. hostname: of this machine."""
    sinks: dict[str, type[FileSink | SyslogSink | HTTPSSink]]
    sinks = {"file": FileSink, "syslog": SyslogSink, "https": HTTPSSink}
    return sinks[declaration.type](declaration, hostname=hostname)


def build_ssl_context(declaration: SinkDeclaration) -> ssl.SSLContext:
    """Return a context that verifies certificate and name. Raises: TransportTLS when a file cannot
    be loaded.
    """
    context = create_ssl_context(declaration.ca_bundle)
    if declaration.client_certificate:
        try:
            # With a password, even an empty one, OpenSSL never prompts for it on a terminal.
            context.load_cert_chain(declaration.client_certificate, password="")
        except OSError as error:
            raise TransportError(
                Code.TRANSPORT_TLS, "client_certificate cannot be loaded."
            ) from error
    return context


def _append_to_file(path: Path, data: bytes) -> None:
    is_new = not path.exists()
    descriptor = os.open(
        path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600
    )
    with open(descriptor, "r+b", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                data = b"\n" + data
        unwritten = memoryview(data)
        while unwritten:
            unwritten = unwritten[file.write(unwritten) :]
        os.fsync(file.fileno())
    if is_new:
        # Write the directory entry to disk.
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def end_stream(connection: socket.socket, *, monotonic_deadline: float) -> None:
    """End the stream, and return when the collector has read all of it and ended its own.

    monotonic_deadline: as of time.monotonic(). Raises: OSError, TransportUnreachable,
    TransportTimeout.
    """
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(_CHUNK_BYTES):
        pass
    _wait_until_acknowledged(connection, monotonic_deadline=monotonic_deadline)


def _end_tls_stream(tls_socket: ssl.SSLSocket, *, monotonic_deadline: float) -> None:
    """Send close_notify, and wait for the one of the collector or for the end of its stream.

    RFC 5425 4.4 requires both, but rsyslog with GnuTLS answers with the end of the TCP stream only.
    """
    try:
        tls_socket.unwrap()
    except ssl.SSLEOFError:
        pass
    except OSError as error:
        # Older releases of OpenSSL report the same end as errno 0.
        if isinstance(error, ssl.SSLError) or error.errno != 0:
            raise
    end_stream(tls_socket, monotonic_deadline=monotonic_deadline)


def _wait_until_acknowledged(connection: socket.socket, *, monotonic_deadline: float) -> None:
    """Return when the peer's host has acknowledged the end of the stream, and all bytes before it.

    A peer that stops reading halfway ends its stream in order too. Bytes that arrive later are
    answered by a reset, which comes after the end of the stream. Only Linux reports the state of
    the connection, so other systems see only a reset that has already arrived.
    Raises: TransportUnreachable, TransportTimeout.
    """
    while (
        sys.platform == "linux"
        and connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE
    ):
        if time.monotonic() >= monotonic_deadline:
            raise TransportError(Code.TRANSPORT_TIMEOUT)
        time.sleep(_POLL_SECONDS)
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise TransportError(Code.TRANSPORT_UNREACHABLE, "The collector reset the connection.")


def _read_header_value(value: str | Path) -> str:
    """Raises: OSError, ValueError."""
    if isinstance(value, str):
        return value
    text = value.read_text(encoding="ascii").strip()
    if not is_valid_header_value(text):
        raise ValueError("Not a header value.")
    return text


def _post(
    request: TransportRequest, declaration: SinkDeclaration, *, timeout_seconds: float
) -> TransportResponse:
    """Return the response of any status but 3xx within timeout_seconds. Raises: TransportError.

    An encoded body is accepted, because the status is the acknowledgement: a refusal would send the
    batch again.
    """
    ssl_context = None
    if request.url.startswith("https:"):
        ssl_context = build_ssl_context(declaration)

    return send_on_new_connection(
        request,
        ssl_context=ssl_context,
        timeout_seconds=timeout_seconds,
        max_body_bytes=MAX_RESPONSE_BYTES,
        allow_encoded_body=True,
    )
