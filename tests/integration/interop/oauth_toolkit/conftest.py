"""One process of django-oauth-toolkit for all tests, with the portal as its client."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.interop.conftest import JWT
from tests.support.log_capture import capture_all_logs
from tests.support.tls import CertificateAuthority

SECRET = "s3cret & more:/+%"
PROVIDER = "tests.integration.interop.oauth_toolkit.provider"


@dataclass(frozen=True, kw_only=True)
class OAuthToolkit:
    """A running provider."""

    issuer: str
    ca_bundle: str
    database: Path

    def fetch(self, path: str) -> dict[str, Any]:
        """Return the JSON document at that path of the issuer."""
        return dict(self._send("GET", path).json())

    def introspect(self, token: str) -> dict[str, Any]:
        """Introspect a token as the portal, without code of this package; it finds access tokens only."""
        return dict(self._send("POST", "/introspect/", {"token": token}).json())

    def refresh(self, token: str) -> requests.Response:
        """Use a refresh token as the portal, without code of this package."""
        return self._send("POST", "/token/", {"grant_type": "refresh_token", "refresh_token": token})

    def is_live_refresh_token(self, token: str) -> bool:
        """Say whether its database has this refresh token, not revoked."""
        query = "SELECT 1 FROM oauth2_provider_refreshtoken WHERE token = ? AND revoked IS NULL"
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query, [token]).fetchone() is not None

    def _send(self, method: str, path: str, fields: dict[str, str] | None = None) -> requests.Response:
        with requests.Session() as web:
            # Otherwise environment variables could replace the CA bundle.
            web.trust_env, web.verify = False, self.ca_bundle
            credentials = {"client_id": "portal", "client_secret": SECRET}
            data = {**fields, **credentials} if fields else None
            return web.request(method, f"{self.issuer}{path}", data=data, timeout=20)


@pytest.fixture(autouse=True)
def _logs_hold_no_secret() -> Iterator[None]:
    """Search every line that a test logs for secrets, without the provider of the other tests."""
    with capture_all_logs() as log:
        yield
    lines = "\n".join(log.lines)
    assert [secret for secret in (SECRET, "1984-03-09", "Lake Road") if secret in lines] == []
    assert JWT.findall(lines) == []


@pytest.fixture(scope="package")
def toolkit(
    authority: CertificateAuthority, certificate: Path, _portal: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OAuthToolkit]:
    folder = tmp_path_factory.mktemp("oauth-toolkit")
    application = {
        "client_id": "portal",
        "client_secret": SECRET,
        "client_type": "confidential",
        "authorization_grant_type": "authorization-code",
        "algorithm": "RS256",
        "redirect_uris": f"{_portal.url}/oidc/callback/",
        "post_logout_redirect_uris": f"{_portal.url}/oidc/logged-out/",
        "skip_authorization": True,
    }
    command = [sys.executable, "-m", PROVIDER, str(folder), str(certificate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(application))
            process.stdin.close()
            yield OAuthToolkit(
                issuer=f"https://localhost:{int(process.stdout.readline())}/o",
                ca_bundle=str(authority.certificate_path),
                database=folder / "provider.sqlite3",
            )
        finally:
            process.kill()


@pytest.fixture
def options(toolkit: OAuthToolkit) -> dict[str, Any]:
    """Return the declaration of the provider that the manual describes."""
    return {
        "issuer": toolkit.issuer,
        "client_id": "portal",
        "client_secret": SECRET,
        "ca_bundle": toolkit.ca_bundle,
        "subject_type": "public",
        "id_token_hint": "never",
    }
