"""The endpoints that issue and accept tokens: token, UserInfo, revocation, introspection."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any

from ..._internal.randomness import token_b64url
from .bound_tokens import find_proof_refusal, get_token_request_thumbprint, validate_binding
from .claims import select_claims
from .client_auth import authenticate_client
from .event_streams import issue_client_token
from .messages import NO_STORE_HEADERS, OAuthError, ReceivedRequest, Reply
from .registrations import Client, Resource
from .signing import compute_half_hash
from .state import Grant, ProviderState, Token

HEART_ID_TOKEN_LIFETIME = timedelta(minutes=5)


def handle_token(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return new tokens for an unused code or refresh token.

    Spec: RFC 6749 4.1.3, 5, 6; RFC 7636 4.6; RFC 9700 4.14.
    """
    try:
        client, parameters = authenticate_client(state, request)
        thumbprint = get_token_request_thumbprint(state, request)
        match parameters.get("grant_type", ""):
            case "authorization_code":
                grant = _redeem_code(state, client, parameters, thumbprint=thumbprint)
                resource = _find_resource(state, parameters, grant)
                scope = grant.scope
                nonce = grant.nonce
            case "refresh_token":
                grant = _consume_refresh_token(
                    state, client, parameters, thumbprint=thumbprint
                ).grant
                resource = _find_resource(state, parameters, grant)
                requested = parameters.get("scope", "").split()
                scope = []
                for value in grant.scope:
                    if not requested or value in requested:
                        scope.append(value)
                # A refreshed ID Token has no nonce. Spec: OIDC Core 12.2.
                nonce = ""
            case "client_credentials":
                return issue_client_token(state, client)
            case "":
                raise OAuthError("invalid_request", "grant_type is missing.")
            case _:
                raise OAuthError("unsupported_grant_type", "This grant type is not supported.")
    except OAuthError as error:
        return error.to_reply()
    return _create_token_reply(state, request, grant, scope=scope, nonce=nonce, resource=resource)


def _create_token_reply(
    state: ProviderState,
    request: ReceivedRequest,
    grant: Grant,
    *,
    scope: Sequence[str],
    nonce: str,
    resource: Resource | None,
) -> Reply:
    """Return the token response. Only a client with that grant type gets a refresh token. Spec: RFC
    6749 5.1.
    """
    now = state.clock()
    if resource is None:
        access_token = state.issue_token(grant, "access_token", scope=scope, now=now)
    else:
        access_token = _issue_resource_token(state, request, grant, resource, scope=scope, now=now)
    body: dict[str, Any] = {
        "access_token": access_token.value,
        "token_type": _get_token_type(grant.dpop_jkt),
        "expires_in": int(state.access_token_lifetime.total_seconds()),
        "scope": " ".join(access_token.scope),
    }
    if "refresh_token" in grant.client.grant_types:
        body["refresh_token"] = state.issue_token(
            grant, "refresh_token", scope=grant.scope, now=now
        ).value
    body["id_token"] = _create_id_token(state, request, access_token, nonce=nonce, now=now)
    return Reply(headers=dict(NO_STORE_HEADERS), json=body)


def _create_id_token(
    state: ProviderState,
    request: ReceivedRequest,
    access_token: Token,
    *,
    nonce: str,
    now: datetime,
) -> str:
    """Spec: OIDC Core 2, 3.1.3.3, 12.2."""
    grant = access_token.grant

    lifetime = state.id_token_lifetime
    if state.heart_claims:
        lifetime = min(lifetime, HEART_ID_TOKEN_LIFETIME)

    claims: dict[str, Any] = {
        "iss": state.issuer,
        "sub": grant.sub,
        "aud": grant.client.client_id,
        "exp": int((now + lifetime).timestamp()),
        "iat": int(now.timestamp()),
        "auth_time": int(grant.auth_time.timestamp()),
        "acr": grant.acr,
        "sid": grant.sid,
    }
    if grant.vot:
        claims["vot"] = grant.vot
        claims["vtm"] = state.trust_mark
    if grant.account.amr:
        claims["amr"] = list(grant.account.amr)
    claims["at_hash"] = compute_half_hash(access_token.value, alg=state.keys[state.signing_alg].alg)
    if nonce:
        claims["nonce"] = nonce
    if state.heart_claims:
        claims["jti"] = token_b64url(16)
        claims["nbf"] = int(now.timestamp())

    scope: Sequence[str] = ()
    if state.scope_claims_in_id_token:
        scope = grant.scope
    claims |= select_claims(
        grant.account, scope=scope, claim_names=grant.claims.get("id_token", {})
    )
    token = state.sign_claims("id_token", request, claims)
    state.id_tokens.append(token)
    return state.encrypt_token("id_token_jwe", request, token, grant.client)


def create_client_token(
    state: ProviderState, client_id: str, *, audience: str, scope: str, claims: Mapping[str, Any]
) -> str:
    """Return a signed access token for an API, as of the grant client_credentials. Spec: RFC 9068
    2.2.
    """
    now = state.clock()
    all_claims: dict[str, Any] = {
        "iss": state.issuer,
        "sub": client_id,
        "aud": audience,
        "client_id": client_id,
        "exp": int((now + state.access_token_lifetime).timestamp()),
        "iat": int(now.timestamp()),
        "jti": token_b64url(16),
    }
    if scope:
        all_claims["scope"] = scope
    all_claims |= claims
    return state.sign_claims(
        "access_token", ReceivedRequest(method="", path=""), all_claims, typ="at+jwt"
    )


def _issue_resource_token(
    state: ProviderState,
    request: ReceivedRequest,
    grant: Grant,
    resource: Resource,
    *,
    scope: Sequence[str],
    now: datetime,
) -> Token:
    """Return a new access token for that API, limited to the API's scopes. Spec: RFC 9068 2; RFC
    8707 2.2.
    """
    resource_scope = []
    for scope_value in scope:
        if scope_value in resource.scopes:
            resource_scope.append(scope_value)

    jwt = ""
    if resource.issues_jwt:
        claims: dict[str, Any] = {
            "iss": state.issuer,
            "sub": grant.sub,
            "aud": resource.identifier,
            "client_id": grant.client.client_id,
            "exp": int((now + state.access_token_lifetime).timestamp()),
            "iat": int(now.timestamp()),
            "jti": token_b64url(16),
            "scope": " ".join(resource_scope),
            "auth_time": int(grant.auth_time.timestamp()),
            "acr": grant.acr,
        }
        if grant.dpop_jkt:
            claims["cnf"] = {"jkt": grant.dpop_jkt}
        jwt = state.sign_claims("access_token", request, claims, typ="at+jwt")

    return state.issue_token(
        grant,
        "access_token",
        scope=resource_scope,
        now=now,
        value=jwt,
        resource=resource.identifier,
    )


def _find_resource(
    state: ProviderState, parameters: Mapping[str, str], grant: Grant
) -> Resource | None:
    """Return the API that the access token is for; None: UserInfo. Spec: RFC 8707 2.2."""
    identifier = parameters.get("resource", grant.resource)
    if (identifier and identifier not in state.resources) or (
        grant.resource and identifier != grant.resource
    ):
        raise OAuthError("invalid_target", "This resource is unknown.")
    return state.resources.get(identifier)


def _redeem_code(
    state: ProviderState, client: Client, parameters: Mapping[str, str], *, thumbprint: str
) -> Grant:
    required = ["code", "redirect_uri"]
    if client.require_pkce:
        required.append("code_verifier")
    for name in required:
        if not parameters.get(name):
            raise OAuthError("invalid_request", f"{name} is missing.")
    with state.lock:
        grant = state.find_grant(parameters["code"])
        if grant is None or grant.client.client_id != client.client_id:
            raise OAuthError("invalid_grant", "The code is unknown.")
        if grant.code_used:
            # The code was stolen. Which of the two requests was the attacker's is unknown, so
            # revoke the tokens of the first one, too. Spec: RFC 6749 4.1.2.
            grant.revoked = True
            raise OAuthError(
                "invalid_grant", "The code was used before; all its tokens are revoked."
            )
        validate_binding(grant, thumbprint)
        grant.dpop_jkt = thumbprint
        grant.code_used = True
    if state.clock() >= grant.code_expires_at:
        raise OAuthError("invalid_grant", "The code has expired.")
    if parameters["redirect_uri"] != grant.redirect_uri:
        raise OAuthError(
            "invalid_grant", "The redirect URI is not that of the authorization request."
        )
    verifier = parameters.get("code_verifier", "")
    if verifier:
        digest = hashlib.sha256(verifier.encode()).digest()
    else:
        digest = b""

    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
    if not compare_digest(challenge, grant.code_challenge):
        raise OAuthError("invalid_grant", "The code verifier does not match the challenge.")
    return grant


def _consume_refresh_token(
    state: ProviderState, client: Client, parameters: Mapping[str, str], *, thumbprint: str
) -> Token:
    if not parameters.get("refresh_token"):
        raise OAuthError("invalid_request", "refresh_token is missing.")
    with state.lock:
        token = state.find_token(parameters["refresh_token"])
        if (
            token is None
            or token.kind != "refresh_token"
            or token.grant.client.client_id != client.client_id
        ):
            raise OAuthError("invalid_grant", "The refresh token is unknown.")
        if token.used:
            # It was stolen, or the response was lost. Revoke all tokens of the grant in both cases.
            # Spec: RFC 9700 4.14.2.
            token.grant.revoked = True
            raise OAuthError(
                "invalid_grant",
                "The refresh token was used before; all tokens of its grant are revoked.",
            )
        if not token.is_active(now=state.clock()):
            raise OAuthError("invalid_grant", "The refresh token is revoked or expired.")
        validate_binding(token.grant, thumbprint)
        if not set(parameters.get("scope", "").split()) <= set(token.grant.scope):
            raise OAuthError("invalid_scope", "The scope exceeds the granted scope.")
        token.used = True
        return token


def handle_userinfo(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the claims that the scope and the claims parameter cover, for an active access token.

    The token is accepted only in the Authorization header, not in the form or URL. For a client
    that registered `userinfo_signed_response_alg`, the response is a signed JWT, and encrypted for
    one that registered that.
    Spec: OIDC Core 5.3; RFC 6750 2.1, 3.
    """
    token = _accept_userinfo_token(state, request)
    if isinstance(token, Reply):
        return token
    grant = token.grant
    claims = select_claims(
        grant.account, scope=token.scope, claim_names=grant.claims.get("userinfo", {})
    )
    claims["sub"] = grant.sub
    alg = grant.client.userinfo_signed_response_alg
    if not alg:
        return Reply(headers=dict(NO_STORE_HEADERS), json=claims)
    claims = {"iss": state.issuer, "aud": grant.client.client_id, **claims}
    signed = state.sign_claims("userinfo_jwt", request, claims, alg=alg)  # Spec: OIDC Core 5.3.2.
    body = state.encrypt_token("userinfo_jwe", request, signed, grant.client).encode()
    return Reply(headers={**NO_STORE_HEADERS, "Content-Type": "application/jwt"}, body=body)


def _accept_userinfo_token(state: ProviderState, request: ReceivedRequest) -> Token | Reply:
    """Return the token of the request, or the refusal. Spec: RFC 6750 2.1, 3; RFC 9449 7.1, 7.2."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    token = state.find_token(value.strip())
    is_valid = (
        token
        and token.kind == "access_token"
        and not token.resource
        and token.is_active(now=state.clock())
    )
    error = ""
    if _has_token_parameter(request):
        error = "invalid_request"
    elif token is None or not is_valid or scheme.lower() != _get_token_type(token.dpop_jkt).lower():
        error = "invalid_token"
    elif token.dpop_jkt and (refusal := find_proof_refusal(state, request, token)):
        return refusal
    elif "openid" not in token.scope:
        error = "insufficient_scope"
    if token is not None and not error:
        return token
    if scheme.lower() not in ("bearer", "dpop") and error == "invalid_token":
        return _create_bearer_error(401, "")
    return _create_bearer_error(
        {"invalid_request": 400, "insufficient_scope": 403}.get(error, 401), error
    )


def _has_token_parameter(request: ReceivedRequest) -> bool:
    """Return whether the URL or the form contains an access token."""
    return any(name == "access_token" for name, _ in [*request.query, *request.form])


def _create_bearer_error(status: int, error: str) -> Reply:
    challenge = 'Bearer realm="demo provider"'
    if error:
        challenge += f', error="{error}"'
    return Reply(
        status=status, headers={**NO_STORE_HEADERS, "WWW-Authenticate": challenge}, body=b""
    )


def handle_revocation(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Revoke the token, and with a refresh token its whole grant; return 200 for an unknown token,
    too.

    The token_type_hint is ignored. A token of another client is refused. Spec: RFC 7009 2.1, 2.2.
    """
    try:
        client, value = _parse_token_request(state, request)
        with state.lock:
            token = state.find_token(value)
            if token is not None and token.grant.client.client_id != client.client_id:
                raise OAuthError("invalid_grant", "The token was issued to another client.")
            if token is not None:
                token.revoked = True
                token.grant.revoked = token.grant.revoked or token.kind == "refresh_token"
    except OAuthError as error:
        return error.to_reply()
    return Reply(headers=dict(NO_STORE_HEADERS))


def handle_introspection(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the details of an active token of the client or of an API; for all others only that it
    is not active.

    Spec: RFC 7662 2.2.
    """
    try:
        client, value = _parse_token_request(state, request)
    except OAuthError as error:
        return error.to_reply()
    token = state.find_token(value)
    is_visible = token is not None and (
        token.resource or token.grant.client.client_id == client.client_id
    )
    if token is None or not is_visible or not token.is_active(now=state.clock()):
        return Reply(headers=dict(NO_STORE_HEADERS), json={"active": False})
    body: dict[str, Any] = {
        "active": True,
        "iss": state.issuer,
        "sub": token.grant.sub,
        "aud": token.resource or client.client_id,
        "client_id": token.grant.client.client_id,
        "scope": " ".join(token.scope),
        "token_type": _get_introspected_type(token),
        "iat": int(token.issued_at.timestamp()),
        "exp": int(token.expires_at.timestamp()),
        "acr": token.grant.acr,
        "auth_time": int(token.grant.auth_time.timestamp()),
    }
    if token.dpop_jkt:
        body["cnf"] = {"jkt": token.dpop_jkt}
    return Reply(headers=dict(NO_STORE_HEADERS), json=body)


def _get_introspected_type(token: Token) -> str:
    if token.kind == "refresh_token":
        return "refresh_token"
    return _get_token_type(token.dpop_jkt)


def _get_token_type(dpop_jkt: str) -> str:
    if dpop_jkt:
        return "DPoP"
    return "Bearer"


def _parse_token_request(state: ProviderState, request: ReceivedRequest) -> tuple[Client, str]:
    client, parameters = authenticate_client(state, request)
    if not parameters.get("token"):
        raise OAuthError("invalid_request", "token is missing.")
    return client, parameters["token"]
