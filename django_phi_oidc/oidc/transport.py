"""The one seam to the network: a request goes in, an answer comes out. Spec: RFC 9110."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .jose import parse_json_object


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TransportRequest:
    """An HTTP request to the OP. Its repr shows neither query nor headers nor body: secrets and tokens stand there."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    operation: str = ""
    """What is asked for, for metrics: a word of ours."""

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url.partition('?')[0]})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TransportResponse:
    """The OP's answer, read to its end. Header names are in lower case. Its repr shows the status alone."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


class Transport(Protocol):
    """Whatever can carry a request to the OP under the limits of R1."""

    def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
        """Return the response. Follows no redirect. timeout_seconds: for the whole exchange.

        Raises: TransportError, one of its subclasses for each way to fail.
        """


def parse_json_body(response: TransportResponse) -> dict[str, Any] | None:
    """Return the JSON object that the answer's body is, whatever its status and type; None when it is none."""
    try:
        return parse_json_object(response.body)
    except ValueError:
        return None


def get_media_type(response: TransportResponse) -> str:
    """Return the answer's media type in lower case, without parameters; empty when it names none.

    Spec: RFC 9110 8.3.1.
    """
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()
