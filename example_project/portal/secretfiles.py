"""Secrets that a developer need not think about: files under var/, made once, readable by their owner alone."""

import os
from pathlib import Path

from django_phi_oidc._internal import randomness


def read(path: Path) -> str:
    """Return the secret in that file, or one for this process alone until `migrate` has made the file."""
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        return randomness.token_b64url(48)


def make(path: Path) -> bool:
    """Make that file with a new secret unless it exists, and say whether it was made."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(randomness.token_b64url(48))
    return True
