"""The UserInfo endpoint. Spec: OIDC Core 5.3; RFC 6750 2.1, 3."""

from typing import Any

from .claims import select_claims
from .messages import NO_STORE_HEADERS, ReceivedRequest, Reply, create_exchange
from .state import Grant, ProviderState


def handle_userinfo(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the claims that scope and the claims parameter cover, to the bearer of a live access token.

    The token counts in the Authorization header alone: neither a form nor a URL may carry it here. The claims are
    signed for a client that registered so.
    """
    if any(name == "access_token" for name, _ in [*request.query, *request.form]):
        return _create_refusal(400, "invalid_request")
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return _create_refusal(401, "")
    token = state.find_token(value.strip())
    if token is None or token.kind != "access_token" or token.resource or not token.is_active(now=state.clock()):
        return _create_refusal(401, "invalid_token")
    if "openid" not in token.scope:
        return _create_refusal(403, "insufficient_scope")
    grant = token.grant
    claims = select_claims(grant.account, scope=token.scope, claim_names=grant.claims.get("userinfo", {}))
    claims["sub"] = grant.sub
    if not grant.client.userinfo_signed_response_alg:
        return Reply(headers=dict(NO_STORE_HEADERS), json=claims)
    signed = _sign_claims(state, request, grant, claims)
    return Reply(headers={**NO_STORE_HEADERS, "Content-Type": "application/jwt"}, body=signed.encode())


def _sign_claims(state: ProviderState, request: ReceivedRequest, grant: Grant, claims: dict[str, Any]) -> str:
    """Spec: OIDC Core 5.3.2."""
    key = state.keys[grant.client.userinfo_signed_response_alg]
    exchange = create_exchange(request)
    exchange.key = key
    exchange.header = {"alg": key.alg, "kid": key.kid, "typ": "JWT"}
    exchange.claims = {"iss": state.issuer, "aud": grant.client.client_id, **claims}
    return state.sign_token("userinfo_jwt", exchange)


def _create_refusal(status: int, error: str) -> Reply:
    challenge = 'Bearer realm="demo provider"' + (f', error="{error}"' if error else "")
    return Reply(status=status, headers={**NO_STORE_HEADERS, "WWW-Authenticate": challenge}, body=b"")
