"""Secrets for development: files under var/ that are created once and only readable by their owner."""

import os
from pathlib import Path

from django_phi_oidc._internal import randomness


def read(path: Path) -> str:
    """Return the secret in the file; before `migrate` has created it, a secret for this process only."""
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        return randomness.token_b64url(48)


def create(path: Path) -> bool:
    """Create the file with a new secret unless it exists. Return whether it was created."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(randomness.token_b64url(48))
    return True
