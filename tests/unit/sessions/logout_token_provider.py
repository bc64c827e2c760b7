"""A provider that signs logout tokens, a portal on a socket, and the requests between them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from django_phi_oidc.provider.registry import _providers
from django_phi_oidc.testing.mock_provider import Client, DemoProvider
from django_phi_oidc.testing.mock_provider.backchannel import create_logout_token

SECRET = "a secret for tests only"
BACKCHANNEL, FRONTCHANNEL = "/oidc/backchannel-logout/", "/oidc/frontchannel-logout/"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP response. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> tuple[str, str]:
        """The two members of a JSON error."""
        members = json.loads(self.body)
        assert set(members) == {"error", "error_description"}
        return members["error"], members["error_description"]


def exchange(base: str, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """Send a request over a socket; return when the server has finished it, including its database work."""
    connection = HTTPConnection(urlsplit(base).netloc, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers={"Connection": "close", **named})
        assert connection.sock is not None
        rest = connection.sock.dup()
        response = connection.getresponse()
        answer = Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=response.read(),
        )
        with rest:
            while rest.recv(4096):
                pass
    finally:
        connection.close()
    return answer


def deliver(base: str, token: str, **more: str) -> Answer:
    """Post a logout token as a provider does. Spec: Back-Channel Logout 2.5."""
    return exchange(base, "POST", BACKCHANNEL, urlencode({"logout_token": token, **more}).encode(), Content_Type=FORM)


def token_of(provider: DemoProvider, *, client_id: str = "portal", **about: str) -> str:
    """Return a logout token of the provider with sub, sid or both, after its hooks."""
    return create_logout_token(provider.state, provider.state.clients[client_id], **about)


def declaration(provider: DemoProvider, **options: Any) -> dict[str, Any]:
    """Return the provider's declaration for the settings."""
    declared = {"issuer": provider.issuer, "client_id": "portal", "client_secret": SECRET, "allow_loopback_http": True}
    return {**declared, **options}


def declare(settings: Any, **providers: dict[str, Any]) -> None:
    """Declare only these providers, and clear what is cached of them."""
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": providers}
    _providers.clear()


@pytest.fixture(scope="session")
def _signing_provider() -> Iterator[DemoProvider]:
    provider = DemoProvider()
    with provider.running():
        yield provider


@pytest.fixture
def portal(live_server: Any, settings: Any) -> str:
    """Return the address of the portal."""
    settings.ROOT_URLCONF = "tests.support.portal_urls"
    return str(live_server.url)


@pytest.fixture
def provider(_signing_provider: DemoProvider, portal: str, settings: Any) -> Iterator[DemoProvider]:
    """Yield the portal's default provider, which has the URL for logout tokens."""
    uri = f"{portal}{BACKCHANNEL}"
    _signing_provider.register_client(
        Client("portal", SECRET, [f"{portal}/oidc/callback/"], backchannel_logout_uri=uri)
    )
    declare(settings, default=declaration(_signing_provider))
    _signing_provider.requests.clear()
    yield _signing_provider
    _signing_provider.mutate = _signing_provider.intercept = None
    _signing_provider.signing_alg = "RS256"
