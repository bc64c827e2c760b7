"""Refusals of API requests: an event, a log line and a response with a challenge.

The rule that failed is in the first two. The response is the same for every invalid token.
Spec: RFC 6750 3, RFC 9449 7.1, RFC 9470 3.
"""

import logging
from collections.abc import Iterable

from rest_framework.exceptions import APIException

from ..._internal import clock
from ...access.policy import Assurance
from ...access.responses import format_bearer_challenge, format_step_up_challenge
from ...audit.events import Action, Origin
from ...audit.refusals import RefusalLog, report_refusal
from ...audit.throttling import API_REASON_PREFIX
from ..apis.dpop_proof import format_dpop_challenge

logger = logging.getLogger("django_phi_oidc.api")
LOG_MESSAGE = (
    "An API request was refused: reason=%(reason)s provider=%(provider)s request=%(request)s"
)
REALM = "api"
RETRY_AFTER_SECONDS = 30
"""The provider's keys are not fetched again before."""
SCOPE_MISSING = "scope_missing"
TOKEN_MISPLACED = "token_misplaced"


class APIRequestRefused(APIException):
    """A refusal with its own challenge. AuthenticationFailed gets its status from the view's first
    authenticator.
    """

    def __init__(
        self, status: int, detail: str, *, code: str, challenge: str = "", wait: int | None = None
    ) -> None:
        """wait: seconds, for Retry-After."""
        super().__init__(detail, code)
        self.status_code = status
        self.auth_header = challenge
        self.wait = wait


def invalid_token(*, is_dpop: bool = False) -> APIRequestRefused:
    """is_dpop: the request has that scheme."""
    description = "The access token is expired, revoked, malformed or not for this API"
    if is_dpop:
        return _create_dpop_refusal("invalid_token", description)
    return _create_refusal(401, "invalid_token", description)


def invalid_proof() -> APIRequestRefused:
    return _create_dpop_refusal(
        "invalid_dpop_proof", "The DPoP proof does not fit the request, or was used before"
    )


def nonce_required() -> APIRequestRefused:
    return _create_dpop_refusal("use_dpop_nonce", "The DPoP proof needs the nonce of DPoP-Nonce")


def invalid_request() -> APIRequestRefused:
    """Return the refusal of a token outside of its header. Spec: RFC 6750 2.3, RFC 9700 4.3.2."""
    return _create_refusal(
        400, "invalid_request", "An access token goes into the Authorization header"
    )


def insufficient_scope(scopes: Iterable[str]) -> APIRequestRefused:
    """scopes: those that would be sufficient."""
    description = "The access token lacks the required scope"
    return _create_refusal(403, "insufficient_scope", description, scope=" ".join(scopes))


def insufficient_user_authentication(assurance: Assurance) -> APIRequestRefused:
    code = "insufficient_user_authentication"
    detail = "A stronger or newer authentication is needed."
    return APIRequestRefused(401, detail, code=code, challenge=format_step_up_challenge(assurance))


def service_unavailable() -> APIRequestRefused:
    """Return the refusal for when the token cannot be verified, or the audit log is unavailable."""
    detail = "The request cannot be processed at the moment."
    return APIRequestRefused(503, detail, code="unavailable", wait=RETRY_AFTER_SECONDS)


def report_api_refusal(
    reason: str,
    *,
    origin: Origin,
    provider: str = "",
    client_id: str = "",
    is_server_error: bool = False,
) -> None:
    """Record and log the refusal. is_server_error: the provider or the portal is at fault, not the
    token.
    """
    fields = {"reason": reason, "provider": provider, "request": origin.request_id}

    if client_id:
        detail = {"client_id": client_id}
    else:
        detail = {}

    report_refusal(
        Action.API_REFUSED,
        reason,
        origin=origin,
        now=clock.now(),
        log=RefusalLog(
            logger, LOG_MESSAGE, fields, logging.ERROR if is_server_error else logging.WARNING
        ),
        throttle_key=API_REASON_PREFIX + reason,
        provider=provider,
        detail=detail,
    )


def _create_dpop_refusal(error: str, description: str) -> APIRequestRefused:
    """Spec: RFC 9449 7.1, 9."""
    challenge = format_dpop_challenge(error=error, error_description=description)
    return APIRequestRefused(401, f"{description}.", code=error, challenge=challenge)


def _create_refusal(
    status: int, error: str, description: str, *, scope: str = ""
) -> APIRequestRefused:
    challenge = format_bearer_challenge(error=error, error_description=description, scope=scope)
    return APIRequestRefused(status, f"{description}.", code=error, challenge=challenge)
