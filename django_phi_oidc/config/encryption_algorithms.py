"""The algorithms by which a provider may encrypt tokens to this client. Spec: RFC 7518 4.1, 5.1.

There is no RSA1_5, and no RSA-OAEP, which uses SHA-1; and no `dir`, A*KW and PBES2, whose key would
be the client secret.
"""

from typing import NamedTuple

from .client_keys import ClientKey

KTY_BY_KEY_MANAGEMENT_ALG = {
    "RSA-OAEP-256": "RSA",
    "ECDH-ES": "EC",
    "ECDH-ES+A128KW": "EC",
    "ECDH-ES+A256KW": "EC",
}
"""The algorithms for the content encryption key, and the only `kty` of each."""
CONTENT_ENCRYPTION_ALGS = ("A256GCM", "A128GCM", "A256CBC-HS512")
"""The algorithms for the content."""
DEFAULT_CONTENT_ENCRYPTION_ALGS = ("A256GCM", "A128GCM")


class ResponseEncryption(NamedTuple):
    """How a kind of token must be encrypted to this client. Without algs, it must not be
    encrypted.
    """

    algs: tuple[str, ...]
    encs: tuple[str, ...]
    keys: tuple[ClientKey, ...]
