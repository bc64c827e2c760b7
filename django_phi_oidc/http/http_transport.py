"""R1: HTTP to a provider. One pooled keep-alive client per provider and process, with limits on
time and size.
"""

import http.client
import os
import ssl
from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import make_headers, parse_url

from .._internal import metrics
from ..config.providers import ProviderDeclaration
from ..errors import Code, TransportError
from ..oidc.metadata import validate_https_url
from ..provider.call_limit import CallLimit, limit_timeout
from ..provider.mutual_tls import (
    CertificateVersion,
    load_client_certificate,
    read_certificate_version,
)
from .connection_pool import (
    TimedConnectionPool,
    TimedExchange,
    TimedTLSConnectionPool,
    translate_error,
)
from .transport import TransportRequest, TransportResponse

MAX_BODY_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
TLS_1_2_CIPHER_SUITES = tuple(
    f"ECDHE-{authentication}-{cipher}"
    for authentication in ("ECDSA", "RSA")
    for cipher in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305")
)
"""OpenSSL's names of the suites with forward secrecy and authenticated encryption (BCP 195). CBC
suites had padding oracles.
"""
MAX_POOLED_CONNECTIONS = 32
"""Per host and process. Further threads get a connection that is closed after use."""


class HTTPTransport:
    """Sends requests to one provider within the limits of R1. Threads and forked children may share
    it.

    The provider's certificates are always verified. The client certificate is presented only to
    endpoints that authenticate the client, and to UserInfo; a renewed file is used from the next
    request on. TLS is 1.2 with the suites of BCP 195, or newer. It follows no redirect, decodes no
    encoded response and reads no environment variable and no .netrc: the proxy comes from the
    declaration.
    NOT covered by the timeout: name resolution, which the system's resolver limits.
    """

    def __init__(self, declaration: ProviderDeclaration) -> None:
        self._declaration = declaration
        # Keyed by process id, and by the version of the client certificate that the connections
        # present, if any. A child does not close inherited pools: a thread that it lacks may hold
        # their locks.
        self._pool_managers: dict[tuple[int, CertificateVersion], urllib3.PoolManager] = {}
        self._call_limits: dict[int, CallLimit] = {}

    def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
        """Return the response, of any status but 3xx unless the request accepts it. Follows no
        redirect.

        timeout_seconds: for the whole exchange, and for its turn.

        A request is sent once. Only a GET is sent again, on a new connection and within the same
        time, when a pooled connection failed under it. A pooled connection that the provider has
        already closed is not used.
        Raises: TransportError, with a code for each cause. Spec: RFC 9110 9.2.2, RFC 9112 9.3.1.
        """
        validate_https_url(request.url, allow_loopback_http=self._declaration.allow_loopback_http)
        pid = os.getpid()
        limits = self._call_limits
        limit = limits.get(pid) or limits.setdefault(
            pid, CallLimit(self._declaration.max_concurrent_calls)
        )
        with metrics.measure_duration(
            metrics.PROVIDER_CALL_DURATION,
            provider=self._declaration.name,
            call=request.operation,
            outcome="error",
        ) as final_labels:
            try:
                seconds = limit_timeout(timeout_seconds)
                with limit.call(
                    timeout_seconds=seconds, is_background=request.is_background
                ) as seconds_left:
                    response = self._send_with_retry(request, timeout_seconds=seconds_left)
            except TransportError as error:
                final_labels["outcome"] = error.code
                raise
            final_labels["outcome"] = f"{response.status // 100}xx"
            return response

    def _send_with_retry(
        self, request: TransportRequest, *, timeout_seconds: float
    ) -> TransportResponse:
        with TimedExchange(timeout_seconds) as exchange:
            try:
                return self._send_once(request, exchange)
            except TransportError as error:
                is_connection_lost = (
                    error.code is Code.TRANSPORT_UNREACHABLE and exchange.is_connection_reused
                )
                if not is_connection_lost or request.method != "GET":
                    raise
            exchange.requires_new_connection = True
            return self._send_once(request, exchange)

    def close(self) -> None:
        """Close the pooled connections of this process."""
        self._close_pools(kept_versions=())

    def _send_once(self, request: TransportRequest, exchange: TimedExchange) -> TransportResponse:
        manager = self._get_pool_manager(presents_certificate=request.presents_certificate)
        return send_once(request, manager=manager, exchange=exchange, max_body_bytes=MAX_BODY_BYTES)

    def _get_pool_manager(self, *, presents_certificate: bool) -> urllib3.PoolManager:
        """Return the pools whose connections present the client certificate as its files are now,
        or none.

        A connection that presents it is never used for other requests. Raises: TransportTLS.
        """
        if presents_certificate:
            version = read_certificate_version(self._declaration)
        else:
            version = ()

        key = (os.getpid(), version)
        managers = self._pool_managers
        if manager := managers.get(key):
            return manager
        manager = managers.setdefault(
            key, _create_pool_manager(self._declaration, presents_certificate=bool(version))
        )
        if version:
            self._close_pools(kept_versions=((), version))
        return manager

    def _close_pools(self, *, kept_versions: Collection[CertificateVersion]) -> None:
        """Close the pools of this process, but those. Requests in progress keep their connection to
        the end.
        """
        for pid, version in list(self._pool_managers):
            is_closed = pid == os.getpid() and version not in kept_versions
            if is_closed and (manager := self._pool_managers.pop((pid, version), None)):
                manager.clear()


def send_on_new_connection(
    request: TransportRequest,
    *,
    ssl_context: ssl.SSLContext | None,
    timeout_seconds: float,
    max_body_bytes: int,
    allow_encoded_body: bool = False,
) -> TransportResponse:
    """Return the response of any status but 3xx from a server that is no provider: the connection
    is closed afterwards, and no limit of calls applies.

    ssl_context: None for a URL with http. timeout_seconds: for the whole exchange.
    allow_encoded_body: as in `send_once`.
    Raises: TransportError.
    """
    manager = urllib3.PoolManager(maxsize=1, ssl_context=ssl_context, cert_reqs=ssl.CERT_REQUIRED)
    manager.pool_classes_by_scheme = {"http": TimedConnectionPool, "https": TimedTLSConnectionPool}
    with manager, TimedExchange(timeout_seconds) as exchange:
        return send_once(
            request,
            manager=manager,
            exchange=exchange,
            max_body_bytes=max_body_bytes,
            allow_encoded_body=allow_encoded_body,
        )


def send_once(
    request: TransportRequest,
    *,
    manager: urllib3.PoolManager,
    exchange: TimedExchange,
    max_body_bytes: int,
    allow_encoded_body: bool = False,
) -> TransportResponse:
    """Return the response within the time of the exchange; a redirect only if the request accepts
    it. It is sent once.

    allow_encoded_body: accept a content or transfer coding, and return the body without decoding
    it.
    Raises: TransportError.
    """
    headers = {}
    for name, value in request.headers.items():
        if name.lower() != "accept-encoding":
            headers[name] = value
    remaining = exchange.get_remaining_seconds()
    try:
        raw_response = manager.urlopen(
            request.method,
            request.url,
            body=request.body,
            headers={"User-Agent": "django-phi-oidc", **headers, "Accept-Encoding": "identity"},
            timeout=urllib3.Timeout(connect=remaining, read=remaining),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            if 300 <= raw_response.status < 400 and request.accepts_redirect:
                headers = {name.lower(): value for name, value in raw_response.headers.itermerged()}
                return TransportResponse(status=raw_response.status, headers=headers, body=b"")
            response = _read_response(
                raw_response, max_body_bytes=max_body_bytes, allow_encoded_body=allow_encoded_body
            )
        finally:
            raw_response.close()
    # ValueError: http.client raises it for a header with a line break, and quotes the header.
    except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        raise translate_error(error, is_expired=exchange.is_expired) from None
    if exchange.is_expired:
        # Without a length, a body that the timer cut off looks complete.
        raise TransportError(Code.TRANSPORT_TIMEOUT)
    return response


def _create_pool_manager(
    declaration: ProviderDeclaration, *, presents_certificate: bool
) -> urllib3.PoolManager:
    context = create_ssl_context(declaration.ca_bundle)
    if presents_certificate:
        load_client_certificate(context, declaration)
    if declaration.proxy:
        proxy = parse_url(declaration.proxy)
        # The proxy must not get the client certificate.
        proxy_context = create_ssl_context(declaration.ca_bundle)

        if proxy.auth:
            headers = make_headers(proxy_basic_auth=unquote(proxy.auth))
        else:
            headers = {}

        manager: urllib3.PoolManager = urllib3.ProxyManager(
            proxy._replace(auth=None).url,
            proxy_headers=headers,
            proxy_ssl_context=proxy_context,
            ssl_context=context,
            cert_reqs=ssl.CERT_REQUIRED,
            maxsize=MAX_POOLED_CONNECTIONS,
        )
    else:
        manager = urllib3.PoolManager(
            ssl_context=context, cert_reqs=ssl.CERT_REQUIRED, maxsize=MAX_POOLED_CONNECTIONS
        )
    manager.pool_classes_by_scheme = {"http": TimedConnectionPool, "https": TimedTLSConnectionPool}
    return manager


def create_ssl_context(ca_bundle: str) -> ssl.SSLContext:
    """Return a context that verifies against that CA file, or the system's CAs if empty. Raises:
    TransportTLS.

    With TLS 1.2 it offers TLS_1_2_CIPHER_SUITES only; those of TLS 1.3 are all permitted. Spec: RFC
    9325 3.1.1, 4.2.
    """
    # Not ssl.create_default_context, which logs session keys to the file that SSLKEYLOGFILE names.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(TLS_1_2_CIPHER_SUITES))
    if not ca_bundle:
        _load_system_cas(context)
        return context
    try:
        context.load_verify_locations(cafile=ca_bundle)
    except OSError as error:
        raise TransportError(Code.TRANSPORT_TLS, "ca_bundle cannot be read.") from error
    return context


def _load_system_cas(context: ssl.SSLContext) -> None:
    """Trust the CAs at OpenSSL's own paths. Not load_default_certs, which SSL_CERT_FILE and
    SSL_CERT_DIR redirect.
    """
    paths = ssl.get_default_verify_paths()
    file = Path(paths.openssl_cafile)
    folder = Path(paths.openssl_capath)
    if file.is_file() or folder.is_dir():
        context.load_verify_locations(
            file if file.is_file() else None, folder if folder.is_dir() else None
        )


def _read_response(
    raw_response: urllib3.BaseHTTPResponse, *, max_body_bytes: int, allow_encoded_body: bool
) -> TransportResponse:
    if 300 <= raw_response.status < 400:
        raise TransportError(Code.TRANSPORT_REDIRECT)
    headers = {name.lower(): value for name, value in raw_response.headers.itermerged()}
    if not allow_encoded_body:
        if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise TransportError(Code.TRANSPORT_ENCODING)
        if headers.get("transfer-encoding", "").strip().lower() not in ("", "chunked"):
            raise TransportError(Code.TRANSPORT_ENCODING)
    if (raw_response.length_remaining or 0) > max_body_bytes:
        raise TransportError(Code.TRANSPORT_TOO_LARGE)
    body = bytearray()
    while chunk := raw_response.read(CHUNK_BYTES):
        body += chunk
        if len(body) > max_body_bytes:
            raise TransportError(Code.TRANSPORT_TOO_LARGE)
    return TransportResponse(status=raw_response.status, headers=headers, body=bytes(body))
