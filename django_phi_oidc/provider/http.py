"""R1: the way to the OP. One pooled, kept-alive client for each provider and process, with a limit to everything."""

import http.client
import os
import ssl
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import make_headers, parse_url

from .. import metering
from ..declarations import ProviderDeclaration
from ..errors import (
    TransportEncoding,
    TransportError,
    TransportRedirect,
    TransportTimeout,
    TransportTLS,
    TransportTooLarge,
    TransportUnreachable,
)
from ..oidc.metadata import check_https
from ..oidc.transport import Request, Response
from .pooling import Exchange, Pool, TLSPool, translate

MAX_BODY_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
KEPT_CONNECTIONS = 32
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
        self._managers: dict[int, urllib3.PoolManager] = {}

    def send(self, request: Request, *, deadline: float) -> Response:
        """Return the answer, whatever its status but 3xx, within deadline seconds for the whole exchange.

        A request is sent once. A GET alone is sent again, on a new connection and within the same deadline, when it
        went out on a kept connection that broke. A kept connection that the OP has closed by then is not used at all.

        Raises: TransportError, one of its subclasses for each way to fail.
        Spec: RFC 9110 9.2.2, RFC 9112 9.3.1.
        """
        check_https(request.url, allow_loopback_http=self._declaration.allow_loopback_http)
        told = {"provider": self._declaration.name, "call": request.call, "outcome": "error"}
        with metering.timed(metering.PROVIDER_CALL, **told) as labels:
            try:
                response = self._send(request, deadline=deadline)
            except TransportError as error:
                labels["outcome"] = error.code
                raise
            labels["outcome"] = f"{response.status // 100}xx"
            return response

    def _send(self, request: Request, *, deadline: float) -> Response:
        with Exchange(deadline) as exchange:
            try:
                return self._attempt(request, exchange)
            except TransportUnreachable:
                if request.method != "GET" or not exchange.reused:
                    raise
            exchange.wants_fresh = True
            return self._attempt(request, exchange)

    def close(self) -> None:
        """Close the connections that this process keeps."""
        manager = self._managers.pop(os.getpid(), None)
        if manager is not None:
            manager.clear()

    def _attempt(self, request: Request, exchange: Exchange) -> Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "accept-encoding"}
        left = exchange.left()
        try:
            answer = self._manager().urlopen(
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
                response = _read(answer)
            finally:
                answer.close()
        # ValueError: what http.client has for a header with a line break, quoting it.
        except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise translate(error, expired=exchange.expired) from None
        if exchange.expired:
            # Where nothing tells the body's length, our own cut looks like its end.
            raise TransportTimeout
        return response

    def _manager(self) -> urllib3.PoolManager:
        manager = self._managers.get(os.getpid())
        if manager is None:
            manager = self._managers.setdefault(os.getpid(), _build_manager(self._declaration))
        return manager


def _build_manager(declaration: ProviderDeclaration) -> urllib3.PoolManager:
    context = build_context(declaration.ca_bundle)
    limits: dict[str, Any] = {"ssl_context": context, "cert_reqs": ssl.CERT_REQUIRED, "maxsize": KEPT_CONNECTIONS}
    if declaration.proxy:
        proxy = parse_url(declaration.proxy)
        headers = make_headers(proxy_basic_auth=unquote(proxy.auth)) if proxy.auth else {}
        manager: urllib3.PoolManager = urllib3.ProxyManager(
            proxy._replace(auth=None).url, proxy_headers=headers, proxy_ssl_context=context, **limits
        )
    else:
        manager = urllib3.PoolManager(**limits)
    manager.pool_classes_by_scheme = {"http": Pool, "https": TLSPool}
    return manager


def build_context(ca_bundle: str) -> ssl.SSLContext:
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


def _read(answer: urllib3.BaseHTTPResponse) -> Response:
    if 300 <= answer.status < 400:
        raise TransportRedirect
    headers = {name.lower(): value for name, value in answer.headers.itermerged()}
    if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise TransportEncoding
    if headers.get("transfer-encoding", "").strip().lower() not in ("", "chunked"):
        raise TransportEncoding
    if (answer.length_remaining or 0) > MAX_BODY_BYTES:
        raise TransportTooLarge
    body = bytearray()
    while chunk := answer.read(CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise TransportTooLarge
    return Response(status=answer.status, headers=headers, body=bytes(body))
