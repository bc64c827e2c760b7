"""Requests to a provider, its responses, and the transport between them. Spec: RFC 9110."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from .jose import parse_json_object


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TransportRequest:
    """An HTTP request to the provider. Its repr omits query, headers and body, which contain secrets and tokens."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    operation: str = ""
    """The name of the operation in metrics."""

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url.partition('?')[0]})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TransportResponse:
    """The complete response of the provider. Header names are in lower case. Its repr shows only status and length."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


class Transport(Protocol):
    """Sends a request to the provider within the limits of R1."""

    def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
        """Return the response. Follows no redirect. timeout_seconds: for the whole exchange.

        Raises: TransportError.
        """


def parse_json_body(response: TransportResponse) -> dict[str, Any] | None:
    """Return the JSON object in the body, regardless of status and media type; None if it is not one."""
    try:
        return parse_json_object(response.body)
    except ValueError:
        return None


def add_query(url: str, parameters: Mapping[str, str]) -> str:
    """Return url with parameters appended to its query."""
    separator = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    return f"{url}{separator}{urlencode(parameters, quote_via=quote)}"


def get_media_type(response: TransportResponse) -> str:
    """Return the media type in lower case without parameters, empty if there is none. Spec: RFC 9110 8.3.1."""
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()
