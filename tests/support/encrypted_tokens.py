"""Tokens that are encrypted to a client, by jwcrypto, which this package does not use."""

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from jwcrypto import jwe, jwk

from django_phi_oidc.config.client_keys import parse_client_keys
from tests.support.client_keys import encode_private_key

_PRIVATE_KEY = ec.generate_private_key(ec.SECP256R1())
ENCRYPTION_KEY_ENTRY = {"key": encode_private_key(_PRIVATE_KEY), "kid": "decryption", "use": "enc"}
"""An entry of `client_keys`."""
ENCRYPTION_KEYS = parse_client_keys("client_keys", ENCRYPTION_KEY_ENTRY)


def encrypt_token(token: str, *, key: Any = _PRIVATE_KEY, **header: Any) -> str:
    """Return the token in a JWE. key: by default that of ENCRYPTION_KEYS."""
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "cty": "JWT", "kid": "decryption", **header}
    container = jwe.JWE(token.encode(), json.dumps(header), algs=[header["alg"], header["enc"]])
    container.add_recipient(jwk.JWK.from_pyca(key.public_key()))
    return str(container.serialize(compact=True))
