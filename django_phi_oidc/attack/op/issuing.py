"""The tokens that a grant is worth. Spec: OIDC Core 2, 3.1.3.3, 12.2; RFC 6749 5.1."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from ...entropy import token_b64url
from .claims import claims_of
from .messages import NO_STORE, Reply, Request, exchange_for
from .registrations import Resource
from .resources import for_resource
from .signing import half_hash
from .state import Grant, State, Token

HEART_LIFETIME = timedelta(minutes=5)


def token_reply(
    state: State,
    request: Request,
    grant: Grant,
    *,
    scope: Sequence[str],
    nonce: str,
    resource: Resource | None,
    now: datetime,
) -> Reply:
    """Return the token response, all of its tokens new; a refresh token only for a client that may have one."""
    if resource is None:
        access_token = state.issue(grant, "access_token", scope=scope, now=now)
    else:
        access_token = for_resource(state, request, grant, resource, scope=scope, now=now)
    body: dict[str, Any] = {
        "access_token": access_token.value,
        "token_type": "Bearer",
        "expires_in": int(state.access_token_lifetime.total_seconds()),
        "scope": " ".join(access_token.scope),
    }
    if "refresh_token" in grant.client.grant_types:
        body["refresh_token"] = state.issue(grant, "refresh_token", scope=grant.scope, now=now).value
    body["id_token"] = _id_token(state, request, access_token, nonce=nonce, now=now)
    state.id_tokens.append(body["id_token"])
    return Reply(headers=dict(NO_STORE), json=body)


def _id_token(state: State, request: Request, access_token: Token, *, nonce: str, now: datetime) -> str:
    grant = access_token.grant
    key = state.keys[state.signing_alg]
    lifetime = min(state.id_token_lifetime, HEART_LIFETIME) if state.heart_claims else state.id_token_lifetime
    exchange = exchange_for(request)
    exchange.key = key
    exchange.header = {"alg": key.alg, "kid": key.kid, "typ": "JWT"}
    exchange.claims = {
        "iss": state.issuer,
        "sub": grant.sub,
        "aud": grant.client.client_id,
        "exp": int((now + lifetime).timestamp()),
        "iat": int(now.timestamp()),
        "auth_time": int(grant.auth_time.timestamp()),
        "acr": grant.acr,
        "sid": grant.sid,
        "at_hash": half_hash(access_token.value, alg=key.alg),
        **({"nonce": nonce} if nonce else {}),
        **({"jti": token_b64url(16), "nbf": int(now.timestamp())} if state.heart_claims else {}),
        **claims_of(
            grant.account,
            scope=grant.scope if state.scope_claims_in_id_token else (),
            names=grant.claims.get("id_token", {}),
        ),
    }
    return state.signed("id_token", exchange)
