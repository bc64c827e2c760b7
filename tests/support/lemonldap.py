"""LemonLDAP::NG of Debian as a process of the tests: a free loopback port, TLS, and a folder that is removed later.

It is configured by `tests/integration/interop/debian/lemonldap`. Its own services are not used.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.external_tools import INTEROP
from tests.support.glewlwyd import SECRET, find_free_port, wait_for_server

SETTINGS = INTEROP / "debian" / "lemonldap"
OPTION = "oidcRPMetaDataOptions"
USERS = ("dwho", "rtyler")
"""Users of the demonstration mode: the password is the name."""


class LemonLDAP:
    """A running portal of LemonLDAP::NG, with one client."""

    def __init__(self, url: str, *, ca_bundle: str) -> None:
        self.url, self.ca_bundle = url, ca_bundle
        self.issuer = f"{url}/"

    def introspect(self, token: str) -> dict[str, Any]:
        """Introspect an access token as the client, without code of this package. Spec: RFC 7662."""
        return dict(self._send("introspect", token=token).json())

    def refresh(self, token: str) -> requests.Response:
        """Use a refresh token as the client, without code of this package."""
        return self._send("token", grant_type="refresh_token", refresh_token=token)

    def _send(self, path: str, **fields: str) -> requests.Response:
        url = f"{self.url}/oauth2/{path}"
        return requests.post(url, data=fields, auth=("portal", SECRET), verify=self.ca_bundle, timeout=20)


@contextmanager
def lemonldap(starman: str, *, certificate: Path, ca_bundle: str, client: Mapping[str, Any]) -> Iterator[LemonLDAP]:
    """Run the server. certificate: a PEM file with the key. client: options, without the prefix that all have."""
    with tempfile.TemporaryDirectory(prefix="lemonldap-") as name:
        folder, port = Path(name), find_free_port()
        url = f"https://localhost:{port}"
        for path in ("conf", "cache", "sessions/lock", "psessions/lock"):
            (folder / path).mkdir(parents=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        words = {
            "@URL": url,
            "@FOLDER": name,
            "@CA": ca_bundle,
            "@PRIVATE": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "@PUBLIC": key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        }
        settings, configuration = ((SETTINGS / file).read_text() for file in ("lemonldap-ng.ini", "configuration.json"))
        for word, value in words.items():
            settings = settings.replace(word, value)
            configuration = configuration.replace(word, json.dumps(value)[1:-1])
        parsed = json.loads(configuration)
        parsed[OPTION]["portal"] = {f"{OPTION}{option}": value for option, value in client.items()}
        (folder / "lemonldap-ng.ini").write_text(settings)
        (folder / "conf" / "lmConf-1.json").write_text(json.dumps(parsed))
        # Several processes, because the portal may ask for the keys while one of them sends a logout token.
        arguments = ["--workers=3", f"--listen=127.0.0.1:{port}:ssl", "--enable-ssl"]
        arguments += [f"--ssl-cert={certificate}", f"--ssl-key={certificate}", str(SETTINGS / "portal.psgi")]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [starman, *arguments],
                env={"PATH": "/usr/bin:/bin", "LLNG_DEFAULTCONFFILE": str(folder / "lemonldap-ng.ini")},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                wait_for_server(process, port, log=folder / "log")
                yield LemonLDAP(url, ca_bundle=ca_bundle)
            finally:
                process.terminate()
                process.wait(20)
