"""The environment of the demo's services: a new directory, free ports, and variables with short durations."""

import fcntl
import json
import shutil
import socket
from collections.abc import MutableMapping
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent.parent
VARIABLE_PREFIXES = ("OIDC_", "PHI_", "DJANGO_", "CELERY_", "EMAIL_", "PORTAL_", "DATABASE_URL", "CACHE_URL")
"""Variables with these prefixes may configure another installation, so the demo removes them."""
RETENTION_SECONDS = 15
BEAT_SECONDS = 1
CLAIMS = {
    "birthdate": {"purpose": "TREAT", "basis": "identity check before treatment", "retention": "session"},
    "address": {"purpose": "HOPERAT", "basis": "appointment letters", "retention": RETENTION_SECONDS},
    "roles": {"purpose": "HOPERAT", "basis": "who works here, and as what", "retention": None},
}
_lock_files: list[IO[str]] = []


def set_up_environment(environ: MutableMapping[str, str]) -> None:
    """Set the variables for the demo and its processes. PORT and the port of OIDC_ISSUER are kept.

    Each running demo locks its own directory, in PORTAL_VAR_DIR.
    """
    parent = Path(environ.get("PORTAL_VAR_DIR") or ROOT / "var")
    provider_port = parse_loopback_port(environ.get("OIDC_ISSUER", "")) or find_free_port()
    portal_port = int(environ.get("PORT") or 0) or find_free_port()
    for name in [name for name in environ if name.startswith(VARIABLE_PREFIXES)]:
        del environ[name]
    var = _lock_directory(parent)
    environ.update(
        DJANGO_SETTINGS_MODULE="portal.settings",
        DJANGO_DEBUG="1",
        PORTAL_VAR_DIR=str(var),
        PORT=str(portal_port),
        OIDC_ISSUER=f"http://127.0.0.1:{provider_port}",
        PHI_CLAIMS_JSON=json.dumps(CLAIMS),
        CELERY_BEAT_SECONDS=str(BEAT_SECONDS),
        PYTHONUNBUFFERED="1",
        TMPDIR=str(_create_directory(var / "tmp")),
    )


def parse_loopback_port(issuer: str) -> int:
    """Return the port of an issuer at http on loopback, else 0: the demo provider runs nowhere else."""
    parts = urlsplit(issuer)
    return (parts.port or 0) if parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost"} else 0


def find_free_port() -> int:
    """Return a port that is currently unused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _lock_directory(parent: Path) -> Path:
    _create_directory(parent)
    number = 1
    while True:
        lock = (parent / f"demo-{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            number += 1
        else:
            break
    # Locked until this process exits.
    _lock_files.append(lock)
    directory = parent / f"demo-{number}"
    shutil.rmtree(directory, ignore_errors=True)
    return _create_directory(directory)


def _create_directory(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory
