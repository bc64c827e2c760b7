"""A client that proves itself by its key: `private_key_jwt`. Spec: RFC 7523 2.2, 3; OIDC Core 9."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import jwt

from ...declarations import SIGNING_ALGS
from .messages import invalid_client
from .outgoing import connect, target
from .registrations import Client
from .signing import unverified
from .state import State

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LONGEST_LIFETIME = timedelta(minutes=10)
SKEW = timedelta(seconds=10)
"""By this much `iat` and `nbf` may lie ahead. `exp` has no leeway."""
DEADLINE_SECONDS = 10.0


def client_of_assertion(state: State, parameters: Mapping[str, str]) -> Client:
    """Return the client that signed the assertion for this provider and for one use, which this was.

    Raises: OAuthError invalid_client. Spec: RFC 7523 3.
    """
    if parameters.get("client_assertion_type") != ASSERTION_TYPE:
        raise invalid_client("client_assertion_type is another.")
    token = parameters["client_assertion"]
    try:
        header, claims = unverified(token)
    except ValueError as error:
        raise invalid_client("The assertion is no JWT.") from error
    issuer = claims.get("iss")
    client = state.clients.get(issuer) if isinstance(issuer, str) else None
    if client is None or claims.get("sub") != issuer:
        raise invalid_client("iss and sub are not both the client_id.")
    if "private_key_jwt" not in client.token_endpoint_auth_methods:
        raise invalid_client("This is not the client's method.")
    _check_signature(client, token, header)
    _check_claims(state, claims, now=state.clock())
    with state.lock:
        if (client.client_id, claims["jti"]) in state.assertion_jtis:
            raise invalid_client("jti was used before.")
        state.assertion_jtis.add((client.client_id, claims["jti"]))
    return client


def _check_signature(client: Client, token: str, header: Mapping[str, Any]) -> None:
    alg, kid = header.get("alg"), header.get("kid")
    registered = client.token_endpoint_auth_signing_alg
    if not isinstance(alg, str) or alg not in ((registered,) if registered else SIGNING_ALGS):
        raise invalid_client("alg is not the client's.")
    if "crit" in header:
        raise invalid_client("No extension is understood.")
    named = [key for key in _keys(client) if isinstance(kid, str) and key.get("kid") == kid]
    if not named:
        raise invalid_client("No key of the client has this kid.")
    key = named[0]
    if key.get("use", "sig") != "sig" or key.get("alg", alg) != alg:
        raise invalid_client("The key is for another use or alg.")
    try:
        jwt.PyJWS().decode(token, jwt.PyJWK(key, alg).key, algorithms=[alg])
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise invalid_client("The signature is not the key's.") from error


def _keys(client: Client) -> list[dict[str, Any]]:
    """The key set is fetched at each use: a key that the client withdrew counts no more."""
    try:
        found = client.jwks if client.jwks is not None else _fetched(client.jwks_uri)
        keys = found["keys"]
    except (OSError, HTTPException, ValueError, RecursionError, LookupError, TypeError) as error:
        raise invalid_client("The client has no key set that can be read.") from error
    return [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []


def _fetched(jwks_uri: str) -> Any:
    url = urlsplit(jwks_uri)
    connection = connect(url, timeout=DEADLINE_SECONDS)
    try:
        connection.request("GET", target(url), headers={"Accept": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError("The key set is not there.")
        return json.loads(response.read())
    finally:
        connection.close()


def _check_claims(state: State, claims: Mapping[str, Any], *, now: datetime) -> None:
    audience = claims.get("aud")
    if not state.audience_names() & {name for name in _listed(audience) if isinstance(name, str)}:
        raise invalid_client("aud is not this provider.")
    expires_at = _seconds(claims, "exp")
    if expires_at is None or not now.timestamp() < expires_at <= (now + LONGEST_LIFETIME).timestamp():
        raise invalid_client("exp is missing, past, or more than ten minutes ahead.")
    for name in ("iat", "nbf"):
        value = _seconds(claims, name) if name in claims else 0
        if value is None or not value <= (now + SKEW).timestamp():
            raise invalid_client(f"{name} is not a time that has come.")
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        raise invalid_client("jti is missing.")


def _listed(audience: object) -> list[object]:
    return audience if isinstance(audience, list) else [audience]


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
