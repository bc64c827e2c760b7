"""The token endpoint: a code once, a refresh token once. Spec: RFC 6749 4.1.3, 5, 6; RFC 7636 4.6; RFC 9700 4.14.

The tokens that a grant is worth. Spec: OIDC Core 2, 3.1.3.3, 12.2; RFC 6749 5.1.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..._internal.randomness import token_b64url
from .claims import select_claims
from .client_auth import authenticate_client
from .messages import NO_STORE_HEADERS, OAuthError, ReceivedRequest, Reply, create_exchange
from .registrations import Client, Resource
from .resources import issue_resource_token
from .signing import compute_half_hash
from .state import Grant, ProviderState, Token

HEART_ID_TOKEN_LIFETIME = timedelta(minutes=5)


def create_token_reply(
    state: ProviderState,
    request: ReceivedRequest,
    grant: Grant,
    *,
    scope: Sequence[str],
    nonce: str,
    resource: Resource | None,
    now: datetime,
) -> Reply:
    """Return the token response, all of its tokens new; a refresh token only for a client that may have one."""
    if resource is None:
        access_token = state.issue_token(grant, "access_token", scope=scope, now=now)
    else:
        access_token = issue_resource_token(state, request, grant, resource, scope=scope, now=now)
    body: dict[str, Any] = {
        "access_token": access_token.value,
        "token_type": "Bearer",
        "expires_in": int(state.access_token_lifetime.total_seconds()),
        "scope": " ".join(access_token.scope),
    }
    if "refresh_token" in grant.client.grant_types:
        body["refresh_token"] = state.issue_token(grant, "refresh_token", scope=grant.scope, now=now).value
    body["id_token"] = _create_id_token(state, request, access_token, nonce=nonce, now=now)
    state.id_tokens.append(body["id_token"])
    return Reply(headers=dict(NO_STORE_HEADERS), json=body)


def _create_id_token(
    state: ProviderState, request: ReceivedRequest, access_token: Token, *, nonce: str, now: datetime
) -> str:
    grant = access_token.grant
    key = state.keys[state.signing_alg]
    lifetime = min(state.id_token_lifetime, HEART_ID_TOKEN_LIFETIME) if state.heart_claims else state.id_token_lifetime
    exchange = create_exchange(request)
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
        "at_hash": compute_half_hash(access_token.value, alg=key.alg),
        **({"nonce": nonce} if nonce else {}),
        **({"jti": token_b64url(16), "nbf": int(now.timestamp())} if state.heart_claims else {}),
        **select_claims(
            grant.account,
            scope=grant.scope if state.scope_claims_in_id_token else (),
            claim_names=grant.claims.get("id_token", {}),
        ),
    }
    return state.sign_token("id_token", exchange)


def handle_token(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return new tokens, or OAuth's refusal."""
    try:
        client, parameters = authenticate_client(state, request)
        match parameters.get("grant_type", ""):
            case "authorization_code":
                return _exchange_code(state, request, client, parameters)
            case "refresh_token":
                return _refresh_tokens(state, request, client, parameters)
            case "":
                raise OAuthError("invalid_request", "grant_type is missing.")
            case _:
                raise OAuthError("unsupported_grant_type", "This grant type is not supported.")
    except OAuthError as error:
        return error.to_reply()


def _exchange_code(
    state: ProviderState, request: ReceivedRequest, client: Client, parameters: Mapping[str, str]
) -> Reply:
    resource = _find_resource(state, parameters)
    grant = _redeem_code(state, client, parameters)
    return create_token_reply(
        state, request, grant, scope=grant.scope, nonce=grant.nonce, resource=resource, now=state.clock()
    )


def _redeem_code(state: ProviderState, client: Client, parameters: Mapping[str, str]) -> Grant:
    for name in ("code", "redirect_uri", *(["code_verifier"] if client.require_pkce else [])):
        if not parameters.get(name):
            raise OAuthError("invalid_request", f"{name} is missing.")
    with state.lock:
        grant = state.find_grant(parameters["code"])
        if grant is None or grant.client.client_id != client.client_id:
            raise OAuthError("invalid_grant", "The code is unknown.")
        if grant.code_used:
            # Somebody has it who should not: whoever came first loses what they got. Spec: RFC 6749 4.1.2.
            grant.revoked = True
            raise OAuthError("invalid_grant", "The code was used before; all tokens of it are revoked.")
        grant.code_used = True
    if state.clock() >= grant.code_expires_at:
        raise OAuthError("invalid_grant", "The code has expired.")
    if parameters["redirect_uri"] != grant.redirect_uri:
        raise OAuthError("invalid_grant", "The redirect URI is not that of the authorization request.")
    verifier = parameters.get("code_verifier", "")
    digest = hashlib.sha256(verifier.encode()).digest() if verifier else b""
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
    if not hmac.compare_digest(challenge, grant.code_challenge):
        raise OAuthError("invalid_grant", "The code verifier does not fit the challenge.")
    return grant


def _refresh_tokens(
    state: ProviderState, request: ReceivedRequest, client: Client, parameters: Mapping[str, str]
) -> Reply:
    resource = _find_resource(state, parameters)
    token = _consume_refresh_token(state, client, parameters)
    wanted = parameters.get("scope", "").split()
    scope = [value for value in token.grant.scope if not wanted or value in wanted]
    # A refreshed ID Token bears no nonce. Spec: OIDC Core 12.2.
    return create_token_reply(state, request, token.grant, scope=scope, nonce="", resource=resource, now=state.clock())


def _find_resource(state: ProviderState, parameters: Mapping[str, str]) -> Resource | None:
    """Return the API that the access token is to be for; None: UserInfo. Spec: RFC 8707 2.2."""
    identifier = parameters.get("resource", "")
    if identifier and identifier not in state.resources:
        raise OAuthError("invalid_target", "There is no such resource.")
    return state.resources.get(identifier)


def _consume_refresh_token(state: ProviderState, client: Client, parameters: Mapping[str, str]) -> Token:
    if not parameters.get("refresh_token"):
        raise OAuthError("invalid_request", "refresh_token is missing.")
    with state.lock:
        token = state.find_token(parameters["refresh_token"])
        if token is None or token.kind != "refresh_token" or token.grant.client.client_id != client.client_id:
            raise OAuthError("invalid_grant", "The refresh token is unknown.")
        if token.used:
            # It was stolen, or the answer was lost: either way the family dies. Spec: RFC 9700 4.14.2.
            token.grant.revoked = True
            raise OAuthError("invalid_grant", "The refresh token was used before; all tokens of it are revoked.")
        if not token.is_active(now=state.clock()):
            raise OAuthError("invalid_grant", "The refresh token is dead.")
        if not set(parameters.get("scope", "").split()) <= set(token.grant.scope):
            raise OAuthError("invalid_scope", "The scope is wider than what was granted.")
        token.used = True
        return token
