"""What becomes of a request whose access token is refused: an event, a line in the log, an answer with its challenge.

Which rule refused goes to the first two. To the app all bad tokens are one. Spec: RFC 6750 3, RFC 9470 3.
"""

import logging
from collections.abc import Iterable

from rest_framework.exceptions import APIException

from ..._internal import clock
from ...access.policy import Assurance
from ...access.responses import format_bearer_challenge, format_step_up_challenge
from ...audit.events import Action, Origin
from ...audit.recorder import record
from ...audit.throttling import API_REASON_PREFIX, allow_event
from ...errors import AuditUnavailable

logger = logging.getLogger("django_phi_oidc.api")
REALM = "api"
RETRY_AFTER_SECONDS = 30
"""Seconds: as long as the OP's keys are not fetched again."""
SCOPE_MISSING = "scope_missing"
TOKEN_MISPLACED = "token_misplaced"


class APIRequestRefused(APIException):
    """An answer with a challenge of its own.

    It is no AuthenticationFailed: of those, the framework lets the view's first authenticator say whether they are 401.
    """

    def __init__(self, status: int, detail: str, *, code: str, challenge: str = "", wait: int | None = None) -> None:
        """wait: seconds, for Retry-After."""
        super().__init__(detail, code)
        self.status_code = status
        self.auth_header = challenge
        self.wait = wait


def invalid_token() -> APIRequestRefused:
    """Return the answer to a token that is not good here, for whatever reason."""
    return _create_refusal(401, "invalid_token", "The access token is expired, revoked, malformed or not for this API")


def invalid_request() -> APIRequestRefused:
    """Return the answer to a token outside of its header. Spec: RFC 6750 2.3, RFC 9700 4.3.2."""
    return _create_refusal(400, "invalid_request", "An access token goes into the Authorization header")


def insufficient_scope(scopes: Iterable[str]) -> APIRequestRefused:
    """Return the answer to a token that does not reach so far. scopes: those that would."""
    return _create_refusal(
        403, "insufficient_scope", "The access token has not the scope for this", scope=" ".join(scopes)
    )


def insufficient_user_authentication(assurance: Assurance) -> APIRequestRefused:
    """Return the answer to somebody whom the OP must know more surely or more lately."""
    code = "insufficient_user_authentication"
    return APIRequestRefused(
        401, "A stronger or newer authentication is needed.", code=code, challenge=format_step_up_challenge(assurance)
    )


def service_unavailable() -> APIRequestRefused:
    """Return the answer when nobody can say whether the token is good, or the trail can't be written."""
    return APIRequestRefused(503, "This can't be answered at the moment.", code="unavailable", wait=RETRY_AFTER_SECONDS)


def report_refusal(
    reason: str, *, origin: Origin, provider: str = "", client_id: str = "", is_server_error: bool = False
) -> None:
    """Tell the trail, as far as it is not flooded, and the log. What is refused stays so when the trail is away.

    is_fault: the OP's, or ours, and not the token's.
    """
    now, level = clock.now(), logging.ERROR if is_server_error else logging.WARNING
    trail_fault: AuditUnavailable | None = None
    if allow_event(API_REASON_PREFIX + reason, origin.client_ip, now=now):
        try:
            record(
                Action.API_REFUSED,
                origin=origin,
                now=now,
                outcome="failure",
                provider=provider,
                reason=reason,
                detail={"client_id": client_id} if client_id else {},
            )
        except AuditUnavailable as fault:
            level, trail_fault = logging.ERROR, fault
    line = "An API request was refused: reason=%s provider=%s request=%s"
    logger.log(level, line, reason, provider, origin.request_id, exc_info=trail_fault)


def _create_refusal(status: int, error: str, description: str, *, scope: str = "") -> APIRequestRefused:
    told = format_bearer_challenge(error=error, error_description=description, scope=scope)
    return APIRequestRefused(status, f"{description}.", code=error, challenge=told)
