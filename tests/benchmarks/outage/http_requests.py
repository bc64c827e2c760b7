"""Requests to the portal, each on a connection of its own."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from types import MappingProxyType
from urllib.parse import urlencode

REQUEST_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    status: int
    seconds: float
    """Until the body was read."""
    location: str
    cookies: tuple[str, ...]


def send_request(
    address: str,
    path: str,
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    form: Mapping[str, str] | None = None,
) -> Response:
    """Send a GET, or a POST of the form."""
    sent_headers = {**headers, "Connection": "close"}
    body = None
    if form is not None:
        body = urlencode(form)
        sent_headers["Content-Type"] = "application/x-www-form-urlencoded"
    started_at = time.monotonic()
    connection = HTTPConnection(address, timeout=REQUEST_SECONDS)
    try:
        connection.request("GET" if form is None else "POST", path, body=body, headers=sent_headers)
        response = connection.getresponse()
        response.read()
        return Response(
            status=response.status,
            seconds=time.monotonic() - started_at,
            location=response.getheader("Location", ""),
            cookies=tuple(response.headers.get_all("Set-Cookie", [])),
        )
    finally:
        connection.close()
