"""The private key that signs checkpoints, where the log is sealed, and the public keys that verify
them, anywhere.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from django.utils.module_loading import import_string

from ..._internal import randomness
from ...crypto.conf import get_key_source
from ...errors import KeyMissing
from .. import conf
from ..merkle.checkpoint import LogKey, NoteSigner, RetiredKey
from .bundle import read_public_key
from .pkcs11_uri import SCHEME as PKCS11_SCHEME

_MAX_EPOCH_DIGITS = 9
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


def get_checkpoint_origin(epoch: int) -> str:
    """Return the first line of the epoch's checkpoints, which is also the name of their key (C2SP
    tlog-checkpoint).

    Raises: KeyMissing if PHI_OIDC['AUDIT']['origin'] is not valid.
    """
    name = conf.origin()
    if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set(" +"):
        text = (
            "PHI_OIDC['AUDIT']['origin'] must be a name without "
            "spaces and '+', such as a host and a path."
        )
        raise KeyMissing(text)

    if epoch == 1:
        return name
    return f"{name}/epoch-{epoch}"


def find_epoch(checkpoint_origin: str) -> int | None:
    """Return the epoch of a checkpoint origin; None if it belongs to another log. Raises:
    KeyMissing.
    """
    if checkpoint_origin == get_checkpoint_origin(1):
        return 1
    number = checkpoint_origin.removeprefix(f"{get_checkpoint_origin(1)}/epoch-")
    if not (number.isascii() and number.isdigit()) or len(number) > _MAX_EPOCH_DIGITS:
        return None

    if checkpoint_origin == get_checkpoint_origin(int(number)):
        return int(number)
    return None


def find_signing_key() -> NoteSigner | None:
    """Return the key that signs checkpoints; None if none is configured, as in a web process.

    Raises: KeyMissing if a configured key cannot be read, or a signer cannot be created.
    """
    source = get_key_source("audit_signing")
    if source is None or source == "":
        return None
    if isinstance(source, str) and source.startswith(PKCS11_SCHEME):
        return _VerifiedSigner(
            _import("django_phi_oidc.audit.log.pkcs11_signer.PKCS11Signer")(source)
        )
    if isinstance(source, str) and _DOTTED_PATH.fullmatch(source):
        source = _import(source)
    if callable(source):
        try:
            source = source()
        except KeyMissing:
            raise
        except Exception as error:
            raise KeyMissing("PHI_OIDC['KEYS']['audit_signing']: the callable failed.") from error
    if hasattr(source, "sign") and hasattr(source, "public_key"):
        return _VerifiedSigner(source)
    return _load_private_key(source)


def get_signing_key() -> NoteSigner:
    """Return the key that signs checkpoints. Raises: KeyMissing, also if none is configured."""
    key = find_signing_key()
    if key is None:
        raise KeyMissing(
            "PHI_OIDC['KEYS']['audit_signing'] is not configured here, so nothing can be signed."
        )
    return key


class _VerifiedSigner:
    """A signer outside of this package, whose signatures are verified before they are used."""

    def __init__(self, signer: NoteSigner) -> None:
        self._signer = signer
        try:
            self._public_key = signer.public_key()
        except KeyMissing:
            raise
        except Exception as error:
            raise KeyMissing(
                "PHI_OIDC['KEYS']['audit_signing']: the signer has no public key."
            ) from error
        if not isinstance(self._public_key, Ed25519PublicKey):
            raise KeyMissing("PHI_OIDC['KEYS']['audit_signing'] is not an Ed25519 key.")

    def public_key(self) -> Ed25519PublicKey:
        return self._public_key

    def sign(self, data: bytes, /) -> bytes:
        """Return the signature. Raises: KeyMissing if the signer fails, or the signature is not
        valid.
        """
        try:
            signature = self._signer.sign(data)
            self._public_key.verify(signature, data)
        except KeyMissing:
            raise
        except InvalidSignature as error:
            text = (
                "PHI_OIDC['KEYS']['audit_signing']: a signature is "
                "not valid under the signer's public key."
            )
            raise KeyMissing(text) from error
        except Exception as error:
            raise KeyMissing("PHI_OIDC['KEYS']['audit_signing']: the signer failed.") from error
        return signature


def _import(path: str) -> Any:
    try:
        return import_string(path)
    except ImportError as error:
        text = "PHI_OIDC['KEYS']['audit_signing'] can't be imported, or its extra is not installed."
        raise KeyMissing(text) from error


def _load_private_key(source: Any) -> Ed25519PrivateKey:
    try:
        if isinstance(source, Path):
            pem = source.read_bytes()
        else:
            pem = str(source).encode("ascii")
        key = load_pem_private_key(pem, password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        text = "PHI_OIDC['KEYS']['audit_signing'] can't be read: it must be an Ed25519 key in PEM."
        raise KeyMissing(text) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyMissing("PHI_OIDC['KEYS']['audit_signing'] is not an Ed25519 key.")
    return key


def _read_log_key(source: Any) -> LogKey:
    """source: a key, or `{"key": a key, "until_size": N}` for one that was replaced. Raises:
    KeyMissing.
    """
    if not isinstance(source, Mapping):
        return read_public_key(source)
    max_tree_size = source.get("until_size")
    if (
        source.keys() != {"key", "until_size"}
        or type(max_tree_size) is not int
        or max_tree_size < 0
    ):
        raise KeyMissing(
            "A retired public key of the log is declared as {'key': …, 'until_size': N}."
        )
    return RetiredKey(read_public_key(source["key"]), max_tree_size)


def get_public_keys(private_key: NoteSigner | None = None) -> tuple[LogKey, ...]:
    """Return the keys that may have signed a checkpoint: the signing key's public half, and
    KEYS['audit_public'].

    private_key: by default that of the setting. Raises: KeyMissing if there is no key, or one
    cannot be read.
    """
    sources: Any = get_key_source("audit_public")
    if not isinstance(sources, list | tuple):
        sources = [sources]
    keys: list[LogKey] = [_read_log_key(source) for source in sources]
    private_key = private_key or find_signing_key()
    if private_key is not None:
        keys.append(private_key.public_key())
    if not keys:
        text = (
            "PHI_OIDC['KEYS']['audit_public'] is empty and there is "
            "no signing key: nothing can be verified."
        )
        raise KeyMissing(text)
    return tuple(keys)


def generate_signing_key() -> str:
    """Return a new Ed25519 private key as PEM."""
    key = Ed25519PrivateKey.from_private_bytes(randomness.token_bytes(32))
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii").strip()
    )
