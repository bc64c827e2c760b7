"""The public keys of a client: to verify its assertions, and to encrypt tokens to it. Spec: RFC
7517; RFC 7591 2.
"""

import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from joserfc import jwk
from joserfc.jwe import JWERegistry, encrypt_compact

from .client_connections import build_request_target, create_connection
from .messages import create_invalid_client_error
from .registrations import Client

TIMEOUT_SECONDS = 10.0


def get_client_keys(client: Client) -> list[dict[str, Any]]:
    """Return the keys of the client, fetched each time, so that a withdrawn key is no longer used.

    Raises: OAuthError invalid_client.
    """
    try:
        if client.jwks is not None:
            jwks = client.jwks
        else:
            jwks = _get_jwks(client.jwks_uri)
        keys = jwks["keys"]
    except (OSError, HTTPException, ValueError, RecursionError, LookupError, TypeError) as error:
        raise create_invalid_client_error("The key set of the client cannot be read.") from error
    if isinstance(keys, list):
        client_keys = []
        for key in keys:
            if isinstance(key, dict):
                client_keys.append(key)
        return client_keys
    return []


def _get_jwks(jwks_uri: str) -> Any:
    url = urlsplit(jwks_uri)
    connection = create_connection(url, timeout_seconds=TIMEOUT_SECONDS)
    try:
        connection.request("GET", build_request_target(url), headers={"Accept": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError("The key set was not found.")
        return json.loads(response.read())
    finally:
        connection.close()


def get_encryption_key(client: Client, alg: str) -> dict[str, Any]:
    """Return the first key of the client for alg. Raises: ValueError if there is none."""
    if alg.startswith("RSA"):
        kty = "RSA"
    else:
        kty = "EC"

    for key in get_client_keys(client):
        if key.get("kty") == kty and key.get("use") == "enc":
            return key
    raise ValueError("The client has no key for encryption.")


def encrypt_jwt(header: Mapping[str, Any], token: str, key: Mapping[str, Any]) -> str:
    """Return the token as the plaintext of a JWE, by the alg, enc and zip of the header. Spec: RFC
    7516 5.1.
    """
    algorithms = []
    for name in ("alg", "enc", "zip"):
        if name in header:
            algorithms.append(str(header[name]))
    registry = JWERegistry(algorithms=algorithms, strict_check_header=False)
    return encrypt_compact(dict(header), token, jwk.import_key(dict(key)), registry=registry)
