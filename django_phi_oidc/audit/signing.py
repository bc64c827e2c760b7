"""The keys of the log: one that signs its checkpoints, wherever it is sealed, and those that verify them, anywhere."""

from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from .. import conf
from ..errors import KeyMissing
from .bundle import read_public_key

_MOST_DIGITS = 9


def origin(epoch: int) -> str:
    """Return the first line of the checkpoints of that epoch, which is also their key's name (C2SP tlog-checkpoint).

    Raises: KeyMissing when PHI_OIDC['AUDIT_ORIGIN'] can't be one.
    """
    name = conf.option("AUDIT_ORIGIN")
    if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set(" +"):
        raise KeyMissing("PHI_OIDC['AUDIT_ORIGIN'] must be a name without spaces and '+', such as a host and a path.")
    return name if epoch == 1 else f"{name}/epoch-{epoch}"


def epoch_of(name: str) -> int | None:
    """Return the epoch of the checkpoints of that origin; None for those of another log. Raises: KeyMissing."""
    if name == origin(1):
        return 1
    prefix, _, number = name.rpartition("-")
    is_epoch = number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS
    return int(number) if is_epoch and prefix == f"{origin(1)}/epoch" and name == origin(int(number)) else None


def signing_key() -> Ed25519PrivateKey | None:
    """Return the key that signs checkpoints; None where none is configured, as in a web process.

    Raises: KeyMissing when one is configured and can't be read.
    """
    source = conf.option("AUDIT_SIGNING_KEY")
    if source is None or source == "":
        return None
    if callable(source):
        source = source()
    try:
        pem = source.read_bytes() if isinstance(source, Path) else str(source).encode("ascii")
        key = load_pem_private_key(pem, password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyMissing("PHI_OIDC['AUDIT_SIGNING_KEY'] can't be read: it must be an Ed25519 key in PEM.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyMissing("PHI_OIDC['AUDIT_SIGNING_KEY'] is no Ed25519 key.")
    return key


def public_keys(own: Ed25519PrivateKey | None = None) -> tuple[Ed25519PublicKey, ...]:
    """Return the keys that checkpoints may be signed by: the public half of own, and those of the setting.

    own: that of the setting where it is not given. Raises: KeyMissing when there is none, or one can't be read.
    """
    sources: Any = conf.option("AUDIT_PUBLIC_KEYS")
    if not isinstance(sources, list | tuple):
        sources = [sources]
    keys = [read_public_key(source) for source in sources]
    own = own or signing_key()
    if own is not None:
        keys.append(own.public_key())
    if not keys:
        raise KeyMissing("PHI_OIDC['AUDIT_PUBLIC_KEYS'] is empty, and there is no signing key: nothing verifies.")
    return tuple(keys)
