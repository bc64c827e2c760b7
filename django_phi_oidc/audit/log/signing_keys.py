"""The private key that signs checkpoints, where the log is sealed, and the public keys that verify them, anywhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ... import conf
from ...errors import KeyMissing
from ...merkle.checkpoint import LogKey, RetiredKey
from .bundle import read_public_key

_MAX_EPOCH_DIGITS = 9


def get_checkpoint_origin(epoch: int) -> str:
    """Return the first line of the epoch's checkpoints, which is also the name of their key (C2SP tlog-checkpoint).

    Raises: KeyMissing if PHI_OIDC['AUDIT']['origin'] is not valid.
    """
    name = conf.audit_origin()
    if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set(" +"):
        text = "PHI_OIDC['AUDIT']['origin'] must be a name without spaces and '+', such as a host and a path."
        raise KeyMissing(text)
    return name if epoch == 1 else f"{name}/epoch-{epoch}"


def find_epoch(checkpoint_origin: str) -> int | None:
    """Return the epoch of a checkpoint origin; None if it belongs to another log. Raises: KeyMissing."""
    if checkpoint_origin == get_checkpoint_origin(1):
        return 1
    number = checkpoint_origin.removeprefix(f"{get_checkpoint_origin(1)}/epoch-")
    if not (number.isascii() and number.isdigit()) or len(number) > _MAX_EPOCH_DIGITS:
        return None
    return int(number) if checkpoint_origin == get_checkpoint_origin(int(number)) else None


def find_signing_key() -> Ed25519PrivateKey | None:
    """Return the key that signs checkpoints; None if none is configured, as in a web process.

    Raises: KeyMissing if a configured key cannot be read.
    """
    source = conf.get_key_source("audit_signing")
    if source is None or source == "":
        return None
    if callable(source):
        try:
            source = source()
        except KeyMissing:
            raise
        except Exception as error:
            raise KeyMissing("PHI_OIDC['KEYS']['audit_signing']: the callable failed.") from error
    try:
        pem = source.read_bytes() if isinstance(source, Path) else str(source).encode("ascii")
        key = load_pem_private_key(pem, password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        text = "PHI_OIDC['KEYS']['audit_signing'] can't be read: it must be an Ed25519 key in PEM."
        raise KeyMissing(text) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyMissing("PHI_OIDC['KEYS']['audit_signing'] is not an Ed25519 key.")
    return key


def get_signing_key() -> Ed25519PrivateKey:
    """Return the key that signs checkpoints. Raises: KeyMissing, also if none is configured."""
    key = find_signing_key()
    if key is None:
        raise KeyMissing("PHI_OIDC['KEYS']['audit_signing'] is not configured here, so nothing can be signed.")
    return key


def _read_log_key(source: Any) -> LogKey:
    """source: a key, or `{"key": a key, "until_size": N}` for one that was replaced. Raises: KeyMissing."""
    if not isinstance(source, Mapping):
        return read_public_key(source)
    max_tree_size = source.get("until_size")
    if source.keys() != {"key", "until_size"} or type(max_tree_size) is not int or max_tree_size < 0:
        raise KeyMissing("A retired public key of the log is declared as {'key': …, 'until_size': N}.")
    return RetiredKey(read_public_key(source["key"]), max_tree_size)


def get_public_keys(private_key: Ed25519PrivateKey | None = None) -> tuple[LogKey, ...]:
    """Return the keys that may have signed a checkpoint: the signing key's public half, and KEYS['audit_public'].

    private_key: by default that of the setting. Raises: KeyMissing if there is no key, or one cannot be read.
    """
    sources: Any = conf.get_key_source("audit_public")
    if not isinstance(sources, list | tuple):
        sources = [sources]
    keys: list[LogKey] = [_read_log_key(source) for source in sources]
    private_key = private_key or find_signing_key()
    if private_key is not None:
        keys.append(private_key.public_key())
    if not keys:
        text = "PHI_OIDC['KEYS']['audit_public'] is empty and there is no signing key: nothing can be verified."
        raise KeyMissing(text)
    return tuple(keys)
