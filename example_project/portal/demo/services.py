"""What the demo runs in: a directory of its own, made anew, and ordinary variables that make time short."""

import fcntl
import json
import shutil
import socket
from collections.abc import MutableMapping
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = ("OIDC_", "PHI_", "DJANGO_", "CELERY_", "EMAIL_", "PORTAL_", "DATABASE_URL", "CACHE_URL")
"""The demo is embedded: what these variables say of another installation is not for it."""
RETENTION_SECONDS = 15
BEAT_SECONDS = 1
CLAIMS = {
    "birthdate": {"purpose": "TREAT", "basis": "identity check before treatment", "retention": "session"},
    "address": {"purpose": "HOPERAT", "basis": "appointment letters", "retention": RETENTION_SECONDS},
    "roles": {"purpose": "HOPERAT", "basis": "who works here, and as what", "retention": None},
}
_held: list[IO[str]] = []


def prepare(environ: MutableMapping[str, str]) -> None:
    """Set the variables that the demo and its processes run with. PORT and the port of OIDC_ISSUER are kept.

    A demo that is still serving keeps its directory: this one takes the next.
    """
    provider_port = loopback_port(environ.get("OIDC_ISSUER", "")) or free_port()
    portal_port = int(environ.get("PORT") or 0) or free_port()
    for name in [name for name in environ if name.startswith(OURS)]:
        del environ[name]
    var = _take_directory(ROOT / "var")
    environ.update(
        DJANGO_SETTINGS_MODULE="portal.settings",
        DJANGO_DEBUG="1",
        PORTAL_VAR_DIR=str(var),
        PORT=str(portal_port),
        OIDC_ISSUER=f"http://127.0.0.1:{provider_port}",
        PHI_CLAIMS_JSON=json.dumps(CLAIMS),
        CELERY_BEAT_SECONDS=str(BEAT_SECONDS),
        PYTHONUNBUFFERED="1",
        TMPDIR=str(_made(var / "tmp")),
    )


def loopback_port(issuer: str) -> int:
    """Return the port of an issuer at http on 127.0.0.1, else 0: the demo's provider can be nowhere else."""
    parts = urlsplit(issuer)
    return (parts.port or 0) if parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost"} else 0


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _take_directory(parent: Path) -> Path:
    _made(parent)
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
    # Held until this process is gone.
    _held.append(lock)
    directory = parent / f"demo-{number}"
    shutil.rmtree(directory, ignore_errors=True)
    return _made(directory)


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory
