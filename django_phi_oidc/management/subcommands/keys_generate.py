"""Make key files, once."""

import os
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ... import conf
from ..._internal import randomness
from ...crypto import keyring


def generate_key_files() -> list[Path]:
    """Write a new key into each key file that the settings name and that does not exist; return those files.

    A file appears with its whole content and mode 0600, in a directory made with mode 0700, and is never overwritten:
    of several runs at once one writes, and all see what it wrote.
    """
    rings = (*conf.KEY_RINGS, conf.PAIRWISE_KEY_RING)
    named = {source: keyring.generate_key for ring in rings if isinstance(source := conf.get_key_source(ring), Path)}
    if isinstance(source := conf.get_key_source("audit_signing"), Path):
        named[source] = generate_signing_key
    return [path for path, make in named.items() if not os.path.lexists(path) and _create_file(path, make())]


def generate_signing_key() -> str:
    """Return a new Ed25519 private key as PEM."""
    key = Ed25519PrivateKey.from_private_bytes(randomness.token_bytes(32))
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii").strip()


def _create_file(path: Path, text: str) -> bool:
    """Return False when somebody else was faster."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, fails where the name is taken.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(draft)
    return True
