"""Requests to a provider, its responses, and the transport between them. Spec: RFC 9110."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from ..errors import Code, TransportError
from ..oidc.jose import parse_json_object

MAX_RETRY_AFTER = timedelta(days=1)
_DELAY_SECONDS_PATTERN = re.compile(r"[0-9]{1,9}")
_IMF_FIXDATE_PATTERN = re.compile(
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TransportRequest:
    """An HTTP request to the provider. Its repr omits query, headers and body, which contain
    secrets and tokens.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    operation: str = ""
    """The name of the operation in metrics."""
    accepts_redirect: bool = False
    """Whether a redirect is a response, of which only the Location is read. It is never
    followed.
    """
    is_background: bool = False
    """Whether a sweep sends it: such requests have a limit of their own, and delay none of a
    user.
    """
    presents_certificate: bool = False
    """Whether the TLS connection presents the declared client certificate, if there is one."""

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url.partition('?')[0]})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TransportResponse:
    """The complete response of the provider. Header names are in lower case. Its repr shows only
    status and length.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


class Transport(Protocol):
    """Sends a request to the provider within the limits of R1."""

    def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
        """Return the response. Follows no redirect, and raises for one unless the request accepts
        it.

        timeout_seconds: for the whole exchange.

        Raises: TransportError.
        """


def parse_json_body(response: TransportResponse) -> dict[str, Any] | None:
    """Return the JSON object in the body, regardless of status and media type; None if it is not
    one.
    """
    try:
        return parse_json_object(response.body)
    except ValueError:
        return None


def add_query(url: str, parameters: Mapping[str, str]) -> str:
    """Return url with parameters appended to its query."""
    if url.endswith(("?", "&")):
        separator = ""
    elif "?" in url:
        separator = "&"
    else:
        separator = "?"
    return f"{url}{separator}{urlencode(parameters, quote_via=quote)}"


def get_media_type(response: TransportResponse) -> str:
    """Return the media type in lower case without parameters, empty if there is none. Spec: RFC
    9110 8.3.1.
    """
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_outage_status(status: int) -> bool:
    """Return whether an HTTP status asks to try again later: 429 or 5xx (RFC 6585 4, RFC 9110
    15.6).
    """
    return status == 429 or status >= 500


def raise_for_outage(response: TransportResponse) -> None:
    """`provider_unavailable`: the status is neither 429 nor 5xx, which say nothing about the
    provider's documents.

    Spec: RFC 9110 15.6; RFC 6585 4.
    """
    if is_outage_status(response.status):
        error = TransportError(Code.PROVIDER_UNAVAILABLE)
        error.retry_after = parse_retry_after(response)
        raise error


def parse_retry_after(response: TransportResponse) -> timedelta | None:
    """Return the delay of Retry-After, between zero and a day; None if it is missing or malformed.

    A date is compared with the Date of the response, so the clocks need not agree. Spec: RFC 9110
    10.2.3, 5.6.7.
    """
    value = response.headers.get("retry-after", "").strip()
    if _DELAY_SECONDS_PATTERN.fullmatch(value):
        wait = timedelta(seconds=int(value))
    else:
        sent = response.headers.get("date", "").strip()
        if not _IMF_FIXDATE_PATTERN.fullmatch(value) or not _IMF_FIXDATE_PATTERN.fullmatch(sent):
            return None
        try:
            wait = parsedate_to_datetime(value) - parsedate_to_datetime(sent)
        except ValueError:
            return None
    return min(max(wait, timedelta(0)), MAX_RETRY_AFTER)
