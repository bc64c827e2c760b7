"""Access tokens for an API beside this provider. Spec: RFC 9068 2; RFC 8707 2.2."""

from collections.abc import Sequence
from datetime import datetime

from ..._internal.randomness import token_b64url
from .messages import ReceivedRequest, create_exchange
from .registrations import Resource
from .state import Grant, ProviderState, Token


def issue_resource_token(
    state: ProviderState,
    request: ReceivedRequest,
    grant: Grant,
    resource: Resource,
    *,
    scope: Sequence[str],
    now: datetime,
) -> Token:
    """Return a new access token for that API, with those of the scopes that are its own."""
    own = [value for value in scope if value in resource.scopes]
    value = _sign_access_token(state, request, grant, resource, scope=own, now=now) if resource.issues_jwt else ""
    return state.issue_token(grant, "access_token", scope=own, now=now, value=value, resource=resource.identifier)


def _sign_access_token(
    state: ProviderState,
    request: ReceivedRequest,
    grant: Grant,
    resource: Resource,
    *,
    scope: Sequence[str],
    now: datetime,
) -> str:
    key = state.keys[state.signing_alg]
    exchange = create_exchange(request)
    exchange.key = key
    exchange.header = {"alg": key.alg, "kid": key.kid, "typ": "at+jwt"}
    exchange.claims = {
        "iss": state.issuer,
        "sub": grant.sub,
        "aud": resource.identifier,
        "client_id": grant.client.client_id,
        "exp": int((now + state.access_token_lifetime).timestamp()),
        "iat": int(now.timestamp()),
        "jti": token_b64url(16),
        "scope": " ".join(scope),
        "auth_time": int(grant.auth_time.timestamp()),
        "acr": grant.acr,
    }
    return state.sign_token("access_token", exchange)
