"""The key to which the provider encrypts the ID Tokens of the contender `phi_oidc_jwe`."""

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwcrypto import jwe, jwk

ENCRYPTED_CLIENT_ID = "portal-jwe"
_KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
"""The same in each process."""
DECRYPTION_KEY_PEM = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def encrypt_id_token(token: str) -> str:
    """Return the JWE that contains the token: ECDH-ES on P-256 with A256GCM."""
    container = jwe.JWE(token.encode(), '{"alg":"ECDH-ES","enc":"A256GCM","cty":"JWT"}', algs=["ECDH-ES", "A256GCM"])
    container.add_recipient(jwk.JWK.from_pyca(_KEY.public_key()))
    return str(container.serialize(compact=True))
