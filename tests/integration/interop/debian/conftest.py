"""Glewlwyd and LemonLDAP::NG, one process each for all tests, with the portal as their client."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.interop.conftest import JWT
from tests.integration.interop.debian.pages import Visitor
from tests.support.external_tools import PARTS
from tests.support.glewlwyd import SECRET, Glewlwyd, glewlwyd
from tests.support.lemonldap import LemonLDAP, lemonldap
from tests.support.log_capture import capture_all_logs
from tests.support.tls import CertificateAuthority

Declare = Callable[..., None]


@pytest.fixture(autouse=True)
def _logs_hold_no_secret() -> Iterator[None]:
    """Search every line that a test logs for secrets, without the provider of the other tests."""
    with capture_all_logs() as log:
        yield
    lines = "\n".join(log.lines)
    assert [secret for secret in (SECRET, "1984-03-09") if secret in lines] == []
    assert JWT.findall(lines) == []


@pytest.fixture(scope="package")
def glewlwyd_server(authority: CertificateAuthority, certificate: Path) -> Iterator[Glewlwyd]:
    ca_bundle = str(authority.certificate_path)
    with glewlwyd(PARTS["glewlwyd"]().where, certificate=certificate, ca_bundle=ca_bundle) as server:
        yield server


@pytest.fixture(scope="package")
def lemonldap_server(authority: CertificateAuthority, certificate: Path, _portal: Any) -> Iterator[LemonLDAP]:
    client = {
        "ClientID": "portal",
        "ClientSecret": SECRET,
        "RedirectUris": f"{_portal.url}/oidc/callback/",
        "PostLogoutRedirectUris": f"{_portal.url}/oidc/logged-out/",
        "LogoutType": "back",
        "LogoutUrl": f"{_portal.url}/oidc/backchannel-logout/",
        "LogoutSessionRequired": 1,
        "IDTokenSignAlg": "RS256",
        "AccessTokenSignAlg": "RS256",
        "RequirePKCE": 1,
        "RefreshToken": 1,
        "BypassConsent": 1,
    }
    bundle = str(authority.certificate_path)
    with lemonldap(PARTS["lemonldap"]().where, certificate=certificate, ca_bundle=bundle, client=client) as server:
        yield server


@pytest.fixture
def visitor(chromium: Any, portal: str) -> Iterator[Visitor]:
    """Return a user with an empty browser."""
    context = chromium.new_context()
    context.set_default_timeout(10_000)
    yield Visitor(context.new_page(), portal)
    context.close()


@pytest.fixture
def declare(settings: Any) -> Declare:
    """Declare the provider of that issuer with these options."""

    def declare(server: Glewlwyd | LemonLDAP, **options: Any) -> None:
        declaration = {
            "issuer": server.issuer,
            "client_id": "portal",
            "client_secret": SECRET,
            "ca_bundle": server.ca_bundle,
            "id_token_signed_response_alg": ["RS256"],
            **options,
        }
        settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration}}

    return declare
