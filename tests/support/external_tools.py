"""External programs and services that some tests need: their locations by marker, or why they are missing."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kombu.connection import Connection
from kombu.exceptions import OperationalError

INTEROP = Path(__file__).parents[1] / "integration" / "interop"
NODE_MAJOR = 22
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
RABBITMQ_URL = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
CHROMIUM = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Arguments of Chromium: it may run as root, and sends no requests in the background."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The location of a program or service, or why it is missing. One of the two is empty."""

    where: str = ""
    missing: str = ""


@cache
def browser() -> Found:
    """Return the path of a Chromium."""
    if importlib.util.find_spec("playwright") is None:
        return Found(missing="the Python package playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    return Found(where=path) if path else Found(missing=f"no browser ({', '.join(BROWSERS)}) on PATH")


@cache
def node() -> Found:
    """Return the path of a Node that can run the installed packages of tests/integration/interop."""
    if not (INTEROP / "node_modules" / "oidc-provider").is_dir():
        return Found(missing="`npm ci` was not run in tests/integration/interop")
    for path in (shutil.which("node", path=str(INTEROP / "node_modules" / ".bin")), shutil.which("node")):
        if path and _node_major(path) >= NODE_MAJOR:
            return Found(where=path)
    return Found(missing=f"no Node {NODE_MAJOR} or newer in tests/integration/interop or on PATH")


@cache
def redis() -> Found:
    """Return the URL of a Redis server that answers."""
    return _broker(REDIS_URL)


@cache
def rabbitmq() -> Found:
    """Return the URL of a RabbitMQ server that answers."""
    return _broker(RABBITMQ_URL)


@cache
def openssl() -> Found:
    """Return the path of an OpenSSL that verifies Ed25519 on its command line: 3.0 or newer."""
    path = shutil.which("openssl")
    version = subprocess.run([path, "version"], capture_output=True, text=True, check=True).stdout if path else ""
    if path and version.startswith("OpenSSL ") and int(version.split()[1].split(".")[0]) >= 3:
        return Found(where=path)
    return Found(missing=f"no OpenSSL 3 on PATH ({version.strip() or 'none'})")


@cache
def gettext() -> Found:
    """Return the path of GNU gettext's xgettext, if its other programs are installed too."""
    path = shutil.which("xgettext")
    return Found(where=path) if path and shutil.which("msgfmt") else Found(missing="no xgettext and msgfmt on PATH")


PARTS: dict[str, Callable[[], Found]] = {
    "browser": browser,
    "gettext": gettext,
    "node": node,
    "openssl": openssl,
    "redis": redis,
    "rabbitmq": rabbitmq,
}


def _broker(url: str) -> Found:
    with Connection(url, connect_timeout=2, transport_options={"socket_connect_timeout": 2}) as connection:
        shown = connection.as_uri()
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=3)
        except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
            return Found(missing=f"{shown} does not answer: {error}")
    return Found(where=url)


def _node_major(path: str) -> int:
    printed = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    return int(printed.strip().removeprefix("v").split(".")[0])
