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
LEMONLDAP_MODULES = ("Lemonldap::NG::Portal", "Crypt::JWT", "String::Random", "IO::String", "IO::Socket::SSL")
"""Perl modules of its portal as an OpenID Provider."""
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


@cache
def glewlwyd() -> Found:
    """Return the path of the OpenID Provider Glewlwyd, as Debian installs it."""
    path = shutil.which("glewlwyd")
    needed = ("/usr/lib/glewlwyd/plugin/libprotocol_oidc.so", "/usr/share/glewlwyd/webapp/login.html")
    if path is None or not all(Path(name).is_file() for name in needed):
        return Found(missing="the Debian package glewlwyd is not installed")
    # The tests give it a CA by a mount of its own.
    namespace = ["unshare", "--map-root-user", "--mount", "true"]
    if shutil.which("unshare") is None or subprocess.run(namespace, capture_output=True, check=False).returncode:
        return Found(missing="unshare (util-linux) may not create a mount namespace here")
    return Found(where=path)


@cache
def lemonldap() -> Found:
    """Return the path of Starman, which serves LemonLDAP::NG, if Debian's packages of both are installed."""
    path = shutil.which("starman")
    modules = [f"-M{name}" for name in LEMONLDAP_MODULES]
    perl = shutil.which("perl")
    if path and perl and subprocess.run([perl, *modules, "-e1"], capture_output=True, check=False).returncode == 0:
        return Found(where=path)
    return Found(missing="Debian's packages of LemonLDAP::NG and Starman are not installed: .ci/run lists them")


@cache
def compose() -> Found:
    """Return the path of Docker Compose, which reads a compose file without an engine."""
    path = shutil.which("docker-compose")
    return Found(where=path) if path else Found(missing="the Debian package docker-compose is not installed")


@cache
def kustomize() -> Found:
    """Return the path of kustomize."""
    path = shutil.which("kustomize")
    return Found(where=path) if path else Found(missing="the Debian package kustomize is not installed")


@cache
def nginx() -> Found:
    """Return the path of nginx."""
    # Debian installs it where the search path of some users does not lead.
    path = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    return Found(where=path) if path else Found(missing="the Debian package nginx is not installed")


@cache
def pgbouncer() -> Found:
    """Return the path of PgBouncer."""
    path = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    return Found(where=path) if path else Found(missing="the Debian package pgbouncer is not installed")


@cache
def systemd() -> Found:
    """Return the path of systemd-analyze."""
    path = shutil.which("systemd-analyze")
    return Found(where=path) if path else Found(missing="the Debian package systemd is not installed")


@cache
def allauth() -> Found:
    """Return the folder of django-allauth."""
    spec = importlib.util.find_spec("allauth")
    return Found(where=str(spec.origin)) if spec else Found(missing="django-allauth is not installed")


@cache
def spid_cie() -> Found:
    """Return the path of a Python with the federation software of the Italian government, spid_cie_oidc."""
    path = INTEROP / "spid_cie" / ".venv" / "bin" / "python"
    if path.is_file() and subprocess.run([path, "-c", "import spid_cie_oidc"], check=False).returncode == 0:
        return Found(where=str(path))
    return Found(missing="tests/integration/interop/spid_cie/requirements.txt is not installed in its .venv")


GO_PATH = "/usr/share/gocode"
"""Where Debian's packages have the sources of Go libraries."""


@cache
def go() -> Found:
    """Return the path of Go, with golang.org/x/mod of Debian."""
    path = shutil.which("go")
    if not path or not Path(GO_PATH, "src", "golang.org", "x", "mod", "sumdb").is_dir():
        return Found(missing="the Debian packages golang-go and golang-golang-x-mod-dev are not installed")
    return Found(where=path)


SOFTHSM_MODULE = "/usr/lib/softhsm/libsofthsm2.so"


@cache
def softhsm() -> Found:
    """Return the path of the PKCS#11 library of SoftHSM."""
    if not shutil.which("softhsm2-util") or not Path(SOFTHSM_MODULE).is_file():
        return Found(missing="the Debian package softhsm2 is not installed")
    if importlib.util.find_spec("pkcs11") is None:
        return Found(missing="the Python package python-pkcs11 is not installed")
    return Found(where=SOFTHSM_MODULE)


@cache
def litewitness() -> Found:
    """Return the path of a witness of transparency logs."""
    path = shutil.which("litewitness") if shutil.which("ssh-agent") else None
    return (
        Found(where=path)
        if path
        else Found(missing="the Debian packages litetlog and openssh-client are not installed")
    )


PARTS: dict[str, Callable[[], Found]] = {
    "allauth": allauth,
    "browser": browser,
    "compose": compose,
    "gettext": gettext,
    "glewlwyd": glewlwyd,
    "go": go,
    "kustomize": kustomize,
    "lemonldap": lemonldap,
    "litewitness": litewitness,
    "nginx": nginx,
    "node": node,
    "openssl": openssl,
    "pgbouncer": pgbouncer,
    "redis": redis,
    "rabbitmq": rabbitmq,
    "softhsm": softhsm,
    "spid_cie": spid_cie,
    "systemd": systemd,
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
