"""Sign with an Ed25519 key in a PKCS#11 token, such as an HSM: the key never leaves it. Needs the
extra `pkcs11`.

Each signature has a session of its own, so a token that was restarted or replaced is used from the
next seal on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from ...errors import KeyMissing
from .pkcs11_uri import PKCS11Key, parse_pkcs11_uri

_ED25519_KEY_BYTES = 32
_initialized_in: dict[str, int] = {}
"""The process that has initialized a library last, by its path."""


class PKCS11Signer:
    """The private key that a PKCS#11 URI names. Spec: PKCS #11 3.0, EdDSA; RFC 7512."""

    def __init__(self, uri: str) -> None:
        """Raises: KeyMissing if the URI is not valid. The token is not used yet."""
        self._key = parse_pkcs11_uri(uri)

    def public_key(self) -> Ed25519PublicKey:
        """Return the public key, of which the token must have an object as well. Raises:
        KeyMissing.
        """
        with _open_session(self._key) as session:
            point = bytes(self._find(session, ObjectClass.PUBLIC_KEY)[Attribute.EC_POINT])
        # An OCTET STRING in DER, or the bytes alone, as some tokens return them.
        try:
            return Ed25519PublicKey.from_public_bytes(point[-_ED25519_KEY_BYTES:])
        except ValueError as error:
            raise KeyMissing("The key in the PKCS#11 token is not an Ed25519 key.") from error

    def sign(self, data: bytes) -> bytes:
        """Return the signature, made in the token. Raises: KeyMissing."""
        with _open_session(self._key) as session:
            key = self._find(session, ObjectClass.PRIVATE_KEY)
            return bytes(key.sign(data, mechanism=Mechanism.EDDSA))

    def _find(self, session: Any, object_class: ObjectClass) -> Any:
        """Return the only object. One of another type of key is not found."""
        key = self._key
        return session.get_key(
            object_class=object_class, key_type=KeyType.EC_EDWARDS, label=key.label, id=key.key_id
        )


@contextmanager
def _open_session(key: PKCS11Key) -> Iterator[Any]:
    """Open a session with the token. Raises: KeyMissing, with the kind of the fault."""
    try:
        library = pkcs11.lib(key.module_path)
        # After a fork, the library of the parent cannot be used (PKCS #11 2.40 5.3).
        if _initialized_in.setdefault(key.module_path, os.getpid()) != os.getpid():
            library.reinitialize()
            _initialized_in[key.module_path] = os.getpid()

        if key.serial is None:
            serial = None
        else:
            serial = key.serial.encode()

        token = library.get_token(token_label=key.token, token_serial=serial)
        with token.open(user_pin=key.pin) as session:
            yield session
    except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
        raise KeyMissing(f"The PKCS#11 token can't be used: {type(error).__name__}.") from error
