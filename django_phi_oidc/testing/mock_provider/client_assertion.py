"""Client authentication by `private_key_jwt`. Spec: RFC 7523 2.2, 3; OIDC Core 9."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from joserfc import jwk
from joserfc.errors import JoseError

from ...config.signature_algorithms import SIGNATURE_ALGORITHMS
from .client_jwks import get_client_keys
from .messages import create_invalid_client_error
from .registrations import Client
from .signing import has_valid_signature, parse_unverified
from .state import ProviderState

CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_ASSERTION_LIFETIME = timedelta(minutes=10)
CLOCK_SKEW = timedelta(seconds=10)
"""The leeway of `iat` and `nbf`. `exp` has none."""


def authenticate_by_assertion(state: ProviderState, parameters: Mapping[str, str]) -> Client:
    """Return the client that signed the assertion for this provider. Each assertion is valid once.

    Raises: OAuthError invalid_client. Spec: RFC 7523 3.
    """
    if parameters.get("client_assertion_type") != CLIENT_ASSERTION_TYPE:
        raise create_invalid_client_error("client_assertion_type is not supported.")
    token = parameters["client_assertion"]
    try:
        header, claims = parse_unverified(token)
    except ValueError as error:
        raise create_invalid_client_error("The assertion is not a JWT.") from error
    issuer = claims.get("iss")
    client = None
    if isinstance(issuer, str):
        client = state.clients.get(issuer)

    if client is None or claims.get("sub") != issuer:
        raise create_invalid_client_error("iss and sub are not both the client_id.")
    if "private_key_jwt" not in client.token_endpoint_auth_methods:
        raise create_invalid_client_error("The client did not register private_key_jwt.")
    _validate_signature(client, token, header)
    _validate_claims(state, claims, now=state.clock())
    with state.lock:
        if (client.client_id, claims["jti"]) in state.used_assertion_jtis:
            raise create_invalid_client_error("jti was used before.")
        state.used_assertion_jtis.add((client.client_id, claims["jti"]))
    return client


def _validate_signature(client: Client, token: str, header: Mapping[str, Any]) -> None:
    alg = header.get("alg")
    kid = header.get("kid")
    registered = client.token_endpoint_auth_signing_alg
    if registered:
        allowed_algs: Collection[str] = (registered,)
    else:
        allowed_algs = SIGNATURE_ALGORITHMS
    if not isinstance(alg, str) or alg not in allowed_algs:
        raise create_invalid_client_error("alg is not allowed for the client.")
    if "crit" in header:
        raise create_invalid_client_error("Critical header parameters are not supported.")
    key = _find_client_key(client, kid)
    if key is None:
        raise create_invalid_client_error("No key of the client has this kid.")
    if key.get("use", "sig") != "sig" or key.get("alg", alg) != alg:
        raise create_invalid_client_error("The key is for another use or alg.")
    try:
        public_key: Any = jwk.import_key(key).public_key
        is_valid = has_valid_signature(token, public_key, alg=alg)
    except (JoseError, ValueError, TypeError, LookupError) as error:
        raise create_invalid_client_error("The key is malformed.") from error
    if not is_valid:
        raise create_invalid_client_error("The signature is invalid.")


def _find_client_key(client: Client, kid: object) -> dict[str, Any] | None:
    if not isinstance(kid, str):
        return None
    for key in get_client_keys(client):
        if key.get("kid") == kid:
            return key
    return None


def _validate_claims(state: ProviderState, claims: Mapping[str, Any], *, now: datetime) -> None:
    audience = claims.get("aud")
    names = {name for name in _as_list(audience) if isinstance(name, str)}
    if names.isdisjoint(state.list_assertion_audiences()):
        raise create_invalid_client_error("aud is not this provider.")
    expires_at = _find_timestamp(claims, "exp")
    if (
        expires_at is None
        or not now.timestamp() < expires_at <= (now + MAX_ASSERTION_LIFETIME).timestamp()
    ):
        raise create_invalid_client_error("exp is missing, past, or more than ten minutes ahead.")
    for name in ("iat", "nbf"):
        if name in claims:
            value = _find_timestamp(claims, name)
        else:
            value = 0
        if value is None or not value <= (now + CLOCK_SKEW).timestamp():
            raise create_invalid_client_error(f"{name} is not a time in the past.")
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        raise create_invalid_client_error("jti is missing.")


def _as_list(audience: object) -> list[object]:
    if isinstance(audience, list):
        return audience
    return [audience]


def _find_timestamp(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return None
