"""The token endpoint: a code once, a refresh token once. Spec: RFC 6749 4.1.3, 5, 6; RFC 7636 4.6; RFC 9700 4.14."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

from .client_auth import authenticated
from .issuing import token_reply
from .messages import OAuthError, Reply, Request
from .registrations import Client, Resource
from .state import Grant, State, Token


def respond(state: State, request: Request) -> Reply:
    """Return new tokens, or OAuth's refusal."""
    try:
        client, parameters = authenticated(state, request)
        match parameters.get("grant_type", ""):
            case "authorization_code":
                return _code_grant(state, request, client, parameters)
            case "refresh_token":
                return _refresh_grant(state, request, client, parameters)
            case "":
                raise OAuthError("invalid_request", "grant_type is missing.")
            case _:
                raise OAuthError("unsupported_grant_type", "This grant type is not supported.")
    except OAuthError as error:
        return error.reply()


def _code_grant(state: State, request: Request, client: Client, parameters: Mapping[str, str]) -> Reply:
    resource = _resource(state, parameters)
    grant = _redeemed(state, client, parameters)
    return token_reply(
        state, request, grant, scope=grant.scope, nonce=grant.nonce, resource=resource, now=state.clock()
    )


def _redeemed(state: State, client: Client, parameters: Mapping[str, str]) -> Grant:
    for name in ("code", "redirect_uri", *(["code_verifier"] if client.require_pkce else [])):
        if not parameters.get(name):
            raise OAuthError("invalid_request", f"{name} is missing.")
    with state.lock:
        grant = state.find_grant(parameters["code"])
        if grant is None or grant.client.client_id != client.client_id:
            raise OAuthError("invalid_grant", "The code is unknown.")
        if grant.code_spent:
            # Somebody has it who should not: whoever came first loses what they got. Spec: RFC 6749 4.1.2.
            grant.revoked = True
            raise OAuthError("invalid_grant", "The code was used before; all tokens of it are revoked.")
        grant.code_spent = True
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


def _refresh_grant(state: State, request: Request, client: Client, parameters: Mapping[str, str]) -> Reply:
    resource = _resource(state, parameters)
    token = _spent(state, client, parameters)
    wanted = parameters.get("scope", "").split()
    scope = [value for value in token.grant.scope if not wanted or value in wanted]
    # A refreshed ID Token bears no nonce. Spec: OIDC Core 12.2.
    return token_reply(state, request, token.grant, scope=scope, nonce="", resource=resource, now=state.clock())


def _resource(state: State, parameters: Mapping[str, str]) -> Resource | None:
    """Return the API that the access token is to be for; None: UserInfo. Spec: RFC 8707 2.2."""
    identifier = parameters.get("resource", "")
    if identifier and identifier not in state.resources:
        raise OAuthError("invalid_target", "There is no such resource.")
    return state.resources.get(identifier)


def _spent(state: State, client: Client, parameters: Mapping[str, str]) -> Token:
    if not parameters.get("refresh_token"):
        raise OAuthError("invalid_request", "refresh_token is missing.")
    with state.lock:
        token = state.find_token(parameters["refresh_token"])
        if token is None or token.kind != "refresh_token" or token.grant.client.client_id != client.client_id:
            raise OAuthError("invalid_grant", "The refresh token is unknown.")
        if token.spent:
            # It was stolen, or the answer was lost: either way the family dies. Spec: RFC 9700 4.14.2.
            token.grant.revoked = True
            raise OAuthError("invalid_grant", "The refresh token was used before; all tokens of it are revoked.")
        if not token.active(now=state.clock()):
            raise OAuthError("invalid_grant", "The refresh token is dead.")
        if not set(parameters.get("scope", "").split()) <= set(token.grant.scope):
            raise OAuthError("invalid_scope", "The scope is wider than what was granted.")
        token.spent = True
        return token
