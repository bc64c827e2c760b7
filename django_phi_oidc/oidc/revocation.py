"""A token is made useless at the OP, or we learn what to do next. Spec: RFC 7009."""

import re
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

from ..config.providers import ProviderDeclaration
from ..errors import RevocationUnsupported
from .client_auth import AssertionFreshness, build_client_request
from .metadata import ProviderMetadata
from .token import TokenTypeHint
from .transport import TransportRequest, TransportResponse, parse_json_body

MAX_RETRY_AFTER = timedelta(days=1)

_DELAY_SECONDS_PATTERN = re.compile(r"[0-9]{1,9}")
_IMF_FIXDATE_PATTERN = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationOutcome:
    """What the OP's answer means for the token.

    done: it is dead. unsupported: the OP revokes no such token, ever. retry: again, with the usual back-off, and not
    before after. retry_slowly: the OP does not know us, which a person must mend. refused: never again.
    """

    result: Literal["done", "unsupported", "retry", "retry_slowly", "refused"]
    retry_after: timedelta | None = None
    """What Retry-After asks for, at most a day; None when it says nothing."""


def build_revocation_request(
    *,
    metadata: ProviderMetadata,
    declaration: ProviderDeclaration,
    token: str,
    token_type_hint: TokenTypeHint,
    freshness: AssertionFreshness,
) -> TransportRequest:
    """Return the request that revokes token, which stands in the body alone. Another try is built anew.

    Raises: RevocationUnsupported when the OP has no revocation endpoint.
    Spec: RFC 7009 2.1.
    """
    if not metadata.revocation_endpoint:
        raise RevocationUnsupported
    parameters = {"token": token, "token_type_hint": token_type_hint}
    return build_client_request(
        operation="revocation",
        url=metadata.revocation_endpoint,
        metadata=metadata,
        declaration=declaration,
        parameters=parameters,
        freshness=freshness,
    )


def process_revocation_response(response: TransportResponse) -> RevocationOutcome:
    """Return what response means. 200 alone is success, whatever stands in its body; never raises.

    Statuses that the specification has no meaning for (2xx but 200, 3xx) are tried again: repeating does no harm, and
    a token given up for a passing fault of a proxy would stay alive.

    Spec: RFC 7009 2.2, 2.2.1; RFC 6749 5.2; RFC 9110 10.2.3.
    """
    status = response.status
    if status == 200:
        return RevocationOutcome(result="done")
    if status == 429 or not 400 <= status < 500:
        return RevocationOutcome(result="retry", retry_after=parse_retry_after(response))
    error = _get_error_code(response)
    if error == "unsupported_token_type":
        return RevocationOutcome(result="unsupported")
    if status == 401 or error == "invalid_client":
        return RevocationOutcome(result="retry_slowly", retry_after=parse_retry_after(response))
    return RevocationOutcome(result="refused")


def parse_retry_after(response: TransportResponse) -> timedelta | None:
    """Return how long Retry-After asks us to wait, between nothing and a day; None without one that can be read.

    A date is measured from the answer's own Date, so the OP's clock need not agree with ours.
    Spec: RFC 9110 10.2.3, 5.6.7.
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


def _get_error_code(response: TransportResponse) -> str:
    """Return the OAuth error of the answer, empty when there is none that can be read."""
    error = (parse_json_body(response) or {}).get("error")
    return error if isinstance(error, str) else ""
