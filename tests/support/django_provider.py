"""An OpenID Provider of a Django project in a separate process."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

SECRET = "s3cret & more:/+%"
SERVER = "tests.integration.interop.django_providers.server"


@dataclass(frozen=True, kw_only=True)
class DjangoProvider:
    """A running provider, and requests to it as the portal, without code of this package."""

    origin: str
    issuer: str
    ca_bundle: str
    database: Path

    def fetch(self, path: str) -> dict[str, Any]:
        """Return the JSON document at that path of the issuer."""
        return dict(self.send("GET", f"{self.issuer}{path}").json())

    def introspect(self, token: str) -> dict[str, Any]:
        """Introspect a token; django-oauth-toolkit finds access tokens only."""
        return dict(self.send("POST", f"{self.issuer}/introspect/", data={"token": token}).json())

    def refresh(self, token: str) -> requests.Response:
        """Use a refresh token."""
        endpoint = self.fetch("/.well-known/openid-configuration")["token_endpoint"]
        return self.send("POST", endpoint, data={"grant_type": "refresh_token", "refresh_token": token})

    def request_userinfo(self, token: str) -> requests.Response:
        """Use an access token."""
        endpoint = self.fetch("/.well-known/openid-configuration")["userinfo_endpoint"]
        return self.send("GET", endpoint, headers={"Authorization": f"Bearer {token}"})

    def is_live_refresh_token(self, token: str) -> bool:
        """Say whether the database of django-oauth-toolkit has this refresh token, not revoked."""
        query = "SELECT 1 FROM oauth2_provider_refreshtoken WHERE token = ? AND revoked IS NULL"
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query, [token]).fetchone() is not None

    def send(self, method: str, url: str, **options: Any) -> requests.Response:
        with requests.Session() as web:
            # Otherwise environment variables could replace the CA bundle.
            web.trust_env, web.verify = False, self.ca_bundle
            if "data" in options:
                options["data"] |= {"client_id": "portal", "client_secret": SECRET}
            return web.request(method, url, timeout=20, **options)


@contextmanager
def django_provider(
    name: str, *, portal: str, certificate: Path, ca_bundle: Path, folder: Path, issuer_path: str = ""
) -> Iterator[DjangoProvider]:
    """Run the provider. name: of a module in tests/integration/interop/django_providers."""
    client = {
        "client_id": "portal",
        "client_secret": SECRET,
        "redirect_uri": f"{portal}/oidc/callback/",
        "post_logout_redirect_uri": f"{portal}/oidc/logged-out/",
    }
    command = [sys.executable, "-m", SERVER, name, str(folder), str(certificate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(client))
            process.stdin.close()
            origin = f"https://localhost:{int(process.stdout.readline())}"
            yield DjangoProvider(
                origin=origin,
                issuer=f"{origin}{issuer_path}",
                ca_bundle=str(ca_bundle),
                database=folder / "provider.sqlite3",
            )
        finally:
            process.kill()
