"""R1: the way to the OP. One pooled, kept-alive client for each provider and process, with a limit to everything."""

import http.client
import os
import ssl
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import make_headers, parse_url

from .._internal import metrics
from ..config.providers import ProviderDeclaration
from ..errors import (
    TransportEncoding,
    TransportError,
    TransportRedirect,
    TransportTimeout,
    TransportTLS,
    TransportTooLarge,
    TransportUnreachable,
)
from ..oidc.metadata import validate_https_url
from ..oidc.transport import TransportRequest, TransportResponse
from .connection_pool import TimedConnectionPool, TimedExchange, TimedTLSConnectionPool, translate_error

MAX_BODY_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
MAX_POOLED_CONNECTIONS = 32
"""For each host of a provider and process; a thread beyond them gets a connection that is closed after use."""


class HTTPTransport:
    """Carries requests to one provider within the limits of R1. Threads may share it, and so may a forked child.

    Certificates are always verified, TLS is 1.2 or newer. No redirect is followed, no encoded answer is decoded, no
    environment variable and no .netrc is read: a proxy is the declaration's.

    NOT covered by the deadline: name resolution, which the system's resolver bounds.
    """

    def __init__(self, declaration: ProviderDeclaration) -> None:
        self._declaration = declaration
        # By process. A child leaves alone what it inherited: closing it takes locks that no thread of the child holds.
        self._pool_managers: dict[int, urllib3.PoolManager] = {}

    def send(self, request: TransportRequest, *, deadline: float) -> TransportResponse:
        """Return the answer, whatever its status but 3xx, within deadline seconds for the whole exchange.

        A request is sent once. A GET alone is sent again, on a new connection and within the same deadline, when it
        went out on a kept connection that broke. A kept connection that the OP has closed by then is not used at all.

        Raises: TransportError, one of its subclasses for each way to fail.
        Spec: RFC 9110 9.2.2, RFC 9112 9.3.1.
        """
        validate_https_url(request.url, allow_loopback_http=self._declaration.allow_loopback_http)
        told = {"provider": self._declaration.name, "call": request.operation, "outcome": "error"}
        with metrics.measure_duration(metrics.PROVIDER_CALL_DURATION, **told) as labels:
            try:
                response = self._send_with_retry(request, deadline=deadline)
            except TransportError as error:
                labels["outcome"] = error.code
                raise
            labels["outcome"] = f"{response.status // 100}xx"
            return response

    def _send_with_retry(self, request: TransportRequest, *, deadline: float) -> TransportResponse:
        with TimedExchange(deadline) as exchange:
            try:
                return self._send_once(request, exchange)
            except TransportUnreachable:
                if request.method != "GET" or not exchange.is_connection_reused:
                    raise
            exchange.requires_new_connection = True
            return self._send_once(request, exchange)

    def close(self) -> None:
        """Close the connections that this process keeps."""
        manager = self._pool_managers.pop(os.getpid(), None)
        if manager is not None:
            manager.clear()

    def _send_once(self, request: TransportRequest, exchange: TimedExchange) -> TransportResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "accept-encoding"}
        left = exchange.get_remaining_seconds()
        try:
            answer = self._get_pool_manager().urlopen(
                request.method,
                request.url,
                body=request.body,
                headers={"User-Agent": "django-phi-oidc", **headers, "Accept-Encoding": "identity"},
                timeout=urllib3.Timeout(connect=left, read=left),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                response = _read_response(answer)
            finally:
                answer.close()
        # ValueError: what http.client has for a header with a line break, quoting it.
        except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise translate_error(error, is_expired=exchange.is_expired) from None
        if exchange.is_expired:
            # Where nothing tells the body's length, our own cut looks like its end.
            raise TransportTimeout
        return response

    def _get_pool_manager(self) -> urllib3.PoolManager:
        manager = self._pool_managers.get(os.getpid())
        if manager is None:
            manager = self._pool_managers.setdefault(os.getpid(), _create_pool_manager(self._declaration))
        return manager


def _create_pool_manager(declaration: ProviderDeclaration) -> urllib3.PoolManager:
    context = create_ssl_context(declaration.ca_bundle)
    limits: dict[str, Any] = {"ssl_context": context, "cert_reqs": ssl.CERT_REQUIRED, "maxsize": MAX_POOLED_CONNECTIONS}
    if declaration.proxy:
        proxy = parse_url(declaration.proxy)
        headers = make_headers(proxy_basic_auth=unquote(proxy.auth)) if proxy.auth else {}
        manager: urllib3.PoolManager = urllib3.ProxyManager(
            proxy._replace(auth=None).url, proxy_headers=headers, proxy_ssl_context=context, **limits
        )
    else:
        manager = urllib3.PoolManager(**limits)
    manager.pool_classes_by_scheme = {"http": TimedConnectionPool, "https": TimedTLSConnectionPool}
    return manager


def create_ssl_context(ca_bundle: str) -> ssl.SSLContext:
    """Return what verifies an OP's certificate, by that file of CAs or by those of the system. Raises: TransportTLS.

    Not ssl.create_default_context: that one writes session keys to where SSLKEYLOGFILE says.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not ca_bundle:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cafile=ca_bundle)
    except OSError as error:
        raise TransportTLS("ca_bundle can't be read.") from error
    return context


def _read_response(raw_response: urllib3.BaseHTTPResponse) -> TransportResponse:
    if 300 <= raw_response.status < 400:
        raise TransportRedirect
    headers = {name.lower(): value for name, value in raw_response.headers.itermerged()}
    if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise TransportEncoding
    if headers.get("transfer-encoding", "").strip().lower() not in ("", "chunked"):
        raise TransportEncoding
    if (raw_response.length_remaining or 0) > MAX_BODY_BYTES:
        raise TransportTooLarge
    body = bytearray()
    while chunk := raw_response.read(CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise TransportTooLarge
    return TransportResponse(status=raw_response.status, headers=headers, body=bytes(body))
