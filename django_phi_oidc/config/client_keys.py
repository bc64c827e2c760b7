"""The client's own keys: the first signs client assertions, others decrypt tokens, all are
published.

A key is unencrypted PEM, as text or as a file. Its kid is its thumbprint, unless the setting names
another one.
Spec: RFC 7517, 7518, 7638.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates

from .certificates import encode_certificate_chain
from .option_grades import LATER, RARE
from .option_parsers import fail, parse_declaration, parse_printable
from .rsa_moduli import ALLOWED_RSA_KEY_BITS, is_allowed_modulus
from .signature_algorithms import (
    ED25519,
    PrivateKey,
    create_signature,
    find_key_type,
    import_key,
    list_signing_algs,
)

KeyUse = Literal["sig", "enc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A private key. Keys are equal if kid, use and the public key are."""

    kid: str
    use: KeyUse
    thumbprint: str
    """Spec: RFC 7638, with SHA-256."""
    certificate: tuple[bytes, ...] = field(default=(), repr=False, compare=False)
    """The certificate of this key in DER, followed by those that issued it. NOT checked: validity
    and signatures.
    """
    private_key: PrivateKey = field(repr=False, compare=False)

    def list_algs(self) -> tuple[str, ...]:
        """Return the signature algorithms of the key, the default first."""
        key_type = find_key_type(self.private_key)
        if key_type is None or self.use == "enc":
            return ()
        return list_signing_algs(key_type)

    def sign(self, alg: str, signing_input: bytes) -> bytes:
        """Return the signature of signing_input by alg, one of list_algs(). Spec: RFC 7518 3, 8037
        3.1.
        """
        if alg not in self.list_algs():
            raise ValueError("The key does not sign with that algorithm.")
        return create_signature(alg, self.private_key, signing_input=signing_input)

    def build_public_jwk(self, alg: str = "") -> dict[str, Any]:
        """Return the public key with its certificates, for use with alg only if it is given. Spec:
        RFC 7517 4.
        """
        members = import_key(self.private_key.public_key()).as_dict()
        jwk = {**members, "kid": self.kid, "use": self.use}
        if self.certificate:
            jwk["x5c"] = encode_certificate_chain(self.certificate)

        if alg:
            return {**jwk, "alg": alg}
        return jwk


def parse_client_keys(path: str, value: Any) -> tuple[ClientKey, ...]:
    """Return the keys of value: an entry, or a list of entries.

    An entry is a PEM text, the Path of a PEM file, or a dictionary with one as `key`.
    Raises: DeclarationInvalid, without the content of a key.
    """
    if isinstance(value, list | tuple):
        entries = list(value)
    else:
        entries = [value]

    if not all(isinstance(entry, str | Path | Mapping) for entry in entries):
        fail(
            path,
            "must be a PEM text, a pathlib.Path of one, a "
            "dictionary with 'key', or a list of these",
        )
    keys = tuple(
        _parse_entry(path, entry if isinstance(entry, Mapping) else {"key": entry})
        for entry in entries
    )
    if len({key.thumbprint for key in keys}) < len(keys):
        fail(path, "names one key twice")

    if len({key.kid for key in keys}) == len(keys):
        return keys
    return fail(path, "gives one kid to two keys")


def _parse_private_key(path: str, source: Any) -> PrivateKey:
    key: Any = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(_read_pem(path, source), password=None)
    rule = (
        f"must be unencrypted PEM of RSA with at least {ALLOWED_RSA_KEY_BITS[0]} bits, P-256, "
        "P-384, P-521 or Ed25519"
    )
    if find_key_type(key) is None:
        fail(path, rule)
    if isinstance(key, RSAPrivateKey) and not is_allowed_modulus(
        key.public_key().public_numbers().n
    ):
        fail(path, f"{rule}; not an RSA key from a faulty generator (ROCA)")
    return cast(PrivateKey, key)


def _parse_certificates(path: str, source: Any) -> tuple[Certificate, ...]:
    with suppress(ValueError, UnsupportedAlgorithm):
        return tuple(load_pem_x509_certificates(_read_pem(path, source)))
    return fail(path, "must be PEM of a certificate, followed by those that issued it")


def _read_pem(path: str, source: Any) -> bytes:
    """Return the content of a file, or a text; empty if source is neither."""
    try:
        return source.read_bytes() if isinstance(source, Path) else source.encode("ascii")
    except OSError:
        fail(path, "names a file that can't be read")
    except (AttributeError, UnicodeEncodeError):
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKeyDeclaration:
    """An entry of `client_keys` as a dictionary."""

    key: Annotated[PrivateKey, _parse_private_key] = field(repr=False, metadata=LATER)
    """PEM text, or the `pathlib.Path` of a PEM file."""
    kid: Annotated[str, parse_printable] = field(default="", metadata=LATER)
    """The key identifier registered at the provider. Default: the thumbprint of RFC 7638."""
    use: KeyUse = field(default="sig", metadata=RARE)
    """`sig`, or `enc`: the key only decrypts tokens; RSA, P-256, P-384 or P-521."""
    certificate: Annotated[tuple[Certificate, ...], _parse_certificates] = field(
        default=(), metadata=RARE
    )
    """The same for its certificate, followed by those that issued it."""


def _parse_entry(path: str, raw: Mapping[Any, Any]) -> ClientKey:
    entry = parse_declaration(ClientKeyDeclaration, path, raw, list_faults=_list_entry_faults)
    thumbprint = import_key(entry.key.public_key()).thumbprint()
    return ClientKey(
        kid=entry.kid or thumbprint,
        use=entry.use,
        thumbprint=thumbprint,
        certificate=tuple(
            certificate.public_bytes(Encoding.DER) for certificate in entry.certificate
        ),
        private_key=entry.key,
    )


def _list_entry_faults(entry: ClientKeyDeclaration) -> Iterator[str]:
    if entry.use == "enc" and find_key_type(entry.key) == ED25519:
        yield "['use'] enc requires RSA, P-256, P-384 or P-521."
    if entry.certificate and entry.certificate[0].public_key() != entry.key.public_key():
        yield "['certificate'] is that of another key."
