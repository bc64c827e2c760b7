"""Private keys of a client, as PEM, for as long as an attack or a test lasts."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def pem(key: Any, *, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    """Return the key's unencrypted PEM."""
    return str(key.private_bytes(Encoding.PEM, form, NoEncryption()).decode("ascii"))


def new_pem(kty: str) -> str:
    """Return the PEM of a new key of that kty, the smallest that is taken."""
    makers: dict[str, Any] = {
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
        "EC": lambda: ec.generate_private_key(ec.SECP256R1()),
        "OKP": ed25519.Ed25519PrivateKey.generate,
    }
    return pem(makers[kty]())
