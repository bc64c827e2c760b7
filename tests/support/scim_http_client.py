"""scim2-client over a socket: its own transport needs a package that is not installed."""

from typing import Any
from urllib.parse import urlunsplit
from wsgiref.headers import Headers

import urllib3
from scim2_client.engines.inprocess import InProcessResponse, _prepare_request
from scim2_client.engines.wsgi import WSGISCIMClient


class HTTPSCIMClient(WSGISCIMClient):
    """A client of scim2-client whose requests are sent by HTTPS, or by HTTP as from a proxy that ends TLS.

    ca_file: of the certificate.
    """

    def __init__(self, base_url: str, token: str, *, ca_file: str | None = None, **options: Any) -> None:
        super().__init__(lambda *args: (), base_url, {"Authorization": f"Bearer {token}"}, **options)
        self.pool = urllib3.PoolManager(ca_certs=ca_file, retries=False, timeout=30)

    def request(self, method: str, url: str, **kwargs: Any) -> InProcessResponse:
        request = _prepare_request(self.base_url, self.headers, method, url, **kwargs)
        headers = {**dict(request.headers), "Connection": "close", "X-Forwarded-Proto": "https"}
        response = self.pool.request(method, urlunsplit(request.url), body=request.body, headers=headers)
        # The server closes each connection, and the pool may notice it too late.
        self.pool.clear()
        return InProcessResponse(response.status, Headers(list(response.headers.items())), response.data)
