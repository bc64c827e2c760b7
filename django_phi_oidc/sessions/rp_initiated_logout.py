"""Build the request that sends the browser to the provider's logout, and recognize its `state` on
the way back.

Spec: OIDC RP-Initiated Logout 1.0, R9.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core import signing
from django.views.decorators.debug import sensitive_variables

from .._internal import randomness
from ..claims.minimization import PROTOCOL_CLAIMS
from ..config.providers import EndSessionMethod
from ..errors import AccountError, MetadataError, TransportError
from ..oidc.rp_initiated_logout import (
    build_end_session_url,
    build_hint_parameters,
    parse_url_origin,
)
from ..provider.registry import get_provider

STATE_MAX_AGE_SECONDS = 600
MAX_URL_LENGTH = 8192
"""Characters of a redirect to the provider; a longer one is not sent."""
_MIN_CALL_SECONDS = 0.1
_STATE_SALT = "django_phi_oidc.sessions.logout"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSessionRequest:
    """A request to the provider's end session endpoint."""

    method: EndSessionMethod
    endpoint: str
    endpoint_origin: str
    """Validated for use in a header."""
    parameters: Mapping[str, str] = field(repr=False)
    needs_click: bool
    """Whether the user decides on a page of the portal: the provider may need the `id_token_hint`,
    which is not sent. Without it some providers show an error or an empty page, which must not be
    the end of a logout.
    """

    @property
    def url(self) -> str:
        """The endpoint with the parameters in its query."""
        return build_end_session_url(self.endpoint, self.parameters)


@sensitive_variables()
def build_end_session_request(
    provider_name: str,
    *,
    id_token: str,
    id_token_claims: Mapping[str, Any],
    post_logout_redirect_uri: str,
    timeout_seconds: float,
    now: datetime,
) -> EndSessionRequest | None:
    """Return the logout request; None without an endpoint, when unavailable, or if the URL would be
    too long.

    id_token, id_token_claims: of the ended session; both may be empty. timeout_seconds: for
    fetching the provider's metadata if they are not cached.
    """
    try:
        provider = get_provider(provider_name)
        metadata = provider.get_metadata(timeout_seconds=max(timeout_seconds, _MIN_CALL_SECONDS))
    except (AccountError, TransportError, MetadataError):
        return None
    declaration = provider.declaration
    method = declaration.end_session_method
    policy = declaration.id_token_hint
    origin = parse_url_origin(metadata.end_session_endpoint)
    if not origin:
        return None
    hint = build_hint_parameters(
        id_token,
        claims=id_token_claims,
        issuer=metadata.issuer,
        policy=policy,
        in_url=method == "get",
        protocol_claims=PROTOCOL_CLAIMS,
    )
    request = EndSessionRequest(
        method=method,
        endpoint=metadata.end_session_endpoint,
        endpoint_origin=origin,
        parameters={
            **dict(declaration.end_session_parameters),
            "client_id": declaration.client_id,
            "post_logout_redirect_uri": post_logout_redirect_uri,
            "state": create_logout_state(now),
            **hint,
        },
        needs_click="id_token_hint" not in hint and policy != "never",
    )
    if method == "post" or len(request.url) <= MAX_URL_LENGTH:
        return request
    return None


def create_logout_state(now: datetime) -> str:
    """Return a random value with its time and a MAC, so that it needs no storage."""
    return signing.Signer(salt=_STATE_SALT).sign(
        f"{randomness.token_b64url(16)}.{int(now.timestamp())}"
    )


def is_valid_logout_state(state: str, *, now: datetime) -> bool:
    """Say whether this server created the state in the last ten minutes."""
    try:
        created_at = int(signing.Signer(salt=_STATE_SALT).unsign(state).rpartition(".")[2])
    except signing.BadSignature:
        return False
    return abs(now.timestamp() - created_at) <= STATE_MAX_AGE_SECONDS
