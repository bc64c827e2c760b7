"""Glewlwyd of Debian as a process of the tests: a free loopback port, TLS, and a folder that is removed afterwards.

It is configured by `tests/integration/interop/debian/glewlwyd`, and by its administration API. Its service is not used.
"""

import gzip
import json
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.external_tools import INTEROP

SETTINGS = INTEROP / "debian" / "glewlwyd"
SCHEMA = Path("/usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz")
"""It creates the administrator, too."""
WEBAPP = Path("/usr/share/glewlwyd/webapp")
WEBAPP_SETTINGS = Path("/etc/glewlwyd/config-2.7.json/config.json")
"""Debian's package links the folder instead of this file, so that its login page would have no settings."""
ADMIN = {"username": "admin", "password": "password"}
SECRET = "a-secret-of-the-portal-for-tests-only"
"""Without characters that need the encoding of RFC 6749 2.3.1, which Glewlwyd does not decode."""
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
TRUSTING = ("unshare", "--map-root-user", "--mount", "sh", "-c")
TRUSTING += (f'mount --bind "$0" {TRUSTED} && exec "$@"',)
"""Runs a program that trusts the CA of the tests. No setting or environment variable gives Glewlwyd a CA for the logout
tokens that it sends."""
START_SECONDS = 20.0


class Glewlwyd:
    """A running server with the OpenID Connect plugin and two users."""

    def __init__(self, url: str, *, ca_bundle: str) -> None:
        self.ca_bundle = ca_bundle
        self.issuer = f"{url}/api/oidc"
        self._url = url
        self._web = requests.Session()
        # Otherwise environment variables could replace the CA bundle.
        self._web.trust_env, self._web.verify = False, ca_bundle
        self._send("POST", "/api/auth/", ADMIN)
        self._add_plugin()
        self._add_users()

    def password_of(self, username: str) -> str:
        return f"password of {username}"

    def register(self, client: Mapping[str, Any]) -> None:
        """Add the client, or replace the one with this client_id."""
        path = f"/api/client/{client['client_id']}"
        exists = self._web.get(f"{self._url}{path}", timeout=20).status_code == 200
        self._send("PUT" if exists else "POST", path if exists else "/api/client/", client)

    def introspect(self, token: str, *, client: Mapping[str, Any]) -> dict[str, Any]:
        """Introspect a token as the client, without code of this package. Spec: RFC 7662."""
        answer = requests.post(
            f"{self.issuer}/introspect",
            data={"token": token},
            auth=(client["client_id"], client["client_secret"]),
            verify=self.ca_bundle,
            timeout=20,
        )
        return dict(answer.json())

    def _add_plugin(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        plugin = json.loads((SETTINGS / "plugin.json").read_text())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        plugin["parameters"] |= {"iss": self.issuer, "key": private.decode(), "cert": public.decode()}
        self._send("POST", "/api/mod/plugin/", plugin)

    def _add_users(self) -> None:
        self._add_property("user", "birthdate", multiple=False)
        # Its documentation has the singular, which is not read.
        self._add_property("client", "post_logout_redirect_uris", multiple=True)
        scope = {"password_required": True, "password_max_age": 0, "scheme": {}}
        self._send("POST", "/api/scope/", {"name": "profile", "display_name": "Profile", "description": "-", **scope})
        for username, name, birthdate in (("amina", "Amina Diallo", "1984-03-09"), ("jonas", "Jonas Weber", "")):
            user = {"username": username, "password": self.password_of(username), "name": name, "birthdate": birthdate}
            self._send("POST", "/api/user/", {**user, "enabled": True, "scope": ["openid", "profile", "g_profile"]})

    def _add_property(self, backend: str, name: str, **options: bool) -> None:
        path = f"/api/mod/{backend}/database"
        module = self._send("GET", path).json()
        module["parameters"]["data-format"][name] = {"read": True, "write": True, "profile-read": True, **options}
        self._send("PUT", path, module)
        self._send("PUT", f"{path}/reset/")

    def _send(self, method: str, path: str, body: Any = None) -> requests.Response:
        response = self._web.request(method, f"{self._url}{path}", json=body, timeout=20)
        assert response.status_code == 200, f"{method} {path}: {response.status_code} {response.text}"
        return response


@contextmanager
def glewlwyd(program: str, *, certificate: Path, ca_bundle: str) -> Iterator[Glewlwyd]:
    """Run the server. certificate: a PEM file with the key."""
    with tempfile.TemporaryDirectory(prefix="glewlwyd-") as name:
        folder, port = Path(name), find_free_port()
        shutil.copytree(WEBAPP, folder / "webapp", ignore=shutil.ignore_patterns("config.json", "config-*"))
        shutil.copy(WEBAPP_SETTINGS, folder / "webapp" / "config.json")
        database = sqlite3.connect(folder / "glewlwyd.db")
        database.executescript(gzip.decompress(SCHEMA.read_bytes()).decode())
        database.close()
        settings = (SETTINGS / "glewlwyd.conf").read_text()
        words = {"@PORT": str(port), "@FOLDER": str(folder), "@CERTIFICATE": str(certificate)}
        for word, value in words.items():
            settings = settings.replace(word, value)
        (folder / "glewlwyd.conf").write_text(settings)
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*TRUSTING, ca_bundle, program, f"--config-file={folder / 'glewlwyd.conf'}"],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                wait_for_server(process, port, log=folder / "log")
                yield Glewlwyd(f"https://localhost:{port}", ca_bundle=ca_bundle)
            finally:
                process.terminate()
                process.wait(20)


def find_free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for_server(process: "subprocess.Popen[Any]", port: int, *, log: Path) -> None:
    """Return as soon as the port accepts connections. Raises: AssertionError with the log."""
    ends_at = time.monotonic() + START_SECONDS
    while time.monotonic() < ends_at and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())
