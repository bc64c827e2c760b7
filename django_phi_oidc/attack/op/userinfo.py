"""The UserInfo endpoint. Spec: OIDC Core 5.3; RFC 6750 2.1, 3."""

from typing import Any

from .claims import claims_of
from .messages import NO_STORE, Reply, Request, exchange_for
from .state import Grant, State


def respond(state: State, request: Request) -> Reply:
    """Return the claims that scope and the claims parameter cover, to the bearer of a live access token.

    The token counts in the Authorization header alone: neither a form nor a URL may carry it here. The claims are
    signed for a client that registered so.
    """
    if any(name == "access_token" for name, _ in [*request.query, *request.form]):
        return _refused(400, "invalid_request")
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return _refused(401, "")
    token = state.find_token(value.strip())
    if token is None or token.kind != "access_token" or token.resource or not token.active(now=state.clock()):
        return _refused(401, "invalid_token")
    if "openid" not in token.scope:
        return _refused(403, "insufficient_scope")
    grant = token.grant
    claims = claims_of(grant.account, scope=token.scope, names=grant.claims.get("userinfo", {}))
    claims["sub"] = grant.sub
    if not grant.client.userinfo_signed_response_alg:
        return Reply(headers=dict(NO_STORE), json=claims)
    signed = _signed(state, request, grant, claims)
    return Reply(headers={**NO_STORE, "Content-Type": "application/jwt"}, body=signed.encode())


def _signed(state: State, request: Request, grant: Grant, claims: dict[str, Any]) -> str:
    """Spec: OIDC Core 5.3.2."""
    key = state.keys[grant.client.userinfo_signed_response_alg]
    exchange = exchange_for(request)
    exchange.key = key
    exchange.header = {"alg": key.alg, "kid": key.kid, "typ": "JWT"}
    exchange.claims = {"iss": state.issuer, "aud": grant.client.client_id, **claims}
    return state.signed("userinfo_jwt", exchange)


def _refused(status: int, error: str) -> Reply:
    challenge = 'Bearer realm="demo provider"' + (f', error="{error}"' if error else "")
    return Reply(status=status, headers={**NO_STORE, "WWW-Authenticate": challenge}, body=b"")
