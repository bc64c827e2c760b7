"""One process of each provider, one portal and one Chromium for all tests. Declarations and cookies are per test."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler

from tests.integration.interop.browser_user import Person, chromium_arguments
from tests.support.certified_provider import SECRET, CertifiedProvider, ProviderProcess, certified_provider
from tests.support.django_provider import DjangoProvider, django_provider
from tests.support.example_portal import EXAMPLE, TLSPortal, tls_portal
from tests.support.external_tools import PARTS
from tests.support.glewlwyd import SECRET as GLEWLWYD_SECRET
from tests.support.glewlwyd import Glewlwyd, glewlwyd
from tests.support.lemonldap import LemonLDAP, lemonldap
from tests.support.log_capture import capture_all_logs
from tests.support.portal_fixtures import events
from tests.support.tls import CertificateAuthority, create_certificate_authority

Declare = Callable[..., None]
JWT = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+")
"""`eyJ` alone would match random values by chance."""
REFRESHING = {"grant_types": ["authorization_code", "refresh_token"]}
"""Metadata of a client that may refresh."""


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return create_certificate_authority(tmp_path_factory.mktemp("authority"), "trusted")


@pytest.fixture(scope="package")
def certificate(authority: CertificateAuthority) -> Path:
    """Return the certificate and key of both sites. Their host names differ, so that they share no cookies."""
    return authority.create_server_certificate("localhost", "127.0.0.1")


@pytest.fixture(scope="package")
def _portal(certificate: Path) -> Iterator[TLSPortal]:
    with tls_portal(certificate) as served:
        yield served


@pytest.fixture(scope="package")
def _op(authority: CertificateAuthority, certificate: Path) -> Iterator[CertifiedProvider]:
    with certified_provider(PARTS["node"]().where, certificate=certificate, ca_bundle=authority.certificate_path) as op:
        yield op


@pytest.fixture(scope="package")
def glewlwyd_server(authority: CertificateAuthority, certificate: Path) -> Iterator[Glewlwyd]:
    ca_bundle = str(authority.certificate_path)
    with glewlwyd(PARTS["glewlwyd"]().where, certificate=certificate, ca_bundle=ca_bundle) as server:
        yield server


@pytest.fixture(scope="package")
def lemonldap_server(authority: CertificateAuthority, certificate: Path, _portal: Any) -> Iterator[LemonLDAP]:
    client = {
        "ClientID": "portal",
        "ClientSecret": GLEWLWYD_SECRET,
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


@pytest.fixture(scope="package")
def start_django_provider(
    authority: CertificateAuthority,
    certificate: Path,
    _portal: TLSPortal,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., DjangoProvider]]:
    """Return a function that starts the provider of that name, which runs until the last test of the package."""
    with ExitStack() as stack:

        def start(name: str, **options: str) -> DjangoProvider:
            folder, ca_bundle = tmp_path_factory.mktemp(name), authority.certificate_path
            places = {"certificate": certificate, "ca_bundle": ca_bundle, "folder": folder}
            return stack.enter_context(django_provider(name, portal=_portal.url, **places, **options))

        yield start


@pytest.fixture(scope="package")
def toolkit(start_django_provider: Callable[..., DjangoProvider]) -> DjangoProvider:
    return start_django_provider("oauth_toolkit", issuer_path="/o")


@pytest.fixture(scope="package")
def allauth_idp(start_django_provider: Callable[..., DjangoProvider]) -> DjangoProvider:
    return start_django_provider("allauth_idp")


@pytest.fixture(scope="package")
def authlib_server(start_django_provider: Callable[..., DjangoProvider]) -> DjangoProvider:
    return start_django_provider("authlib_server")


@pytest.fixture(scope="package")
def chromium(certificate: Path) -> Iterator[Any]:
    """Start a Chromium that accepts the certificate of both sites.

    Playwright leaves an event loop running in this thread, so Django assumes asynchronous code and refuses database
    access. That is a false alarm: other threads serve the pages, and the tests only make blocking calls.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- only if the marker `browser` selected the test

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(
            executable_path=PARTS["browser"]().where, args=chromium_arguments(certificate)
        )
        yield browser
        browser.close()


@pytest.fixture
def portal(_portal: TLSPortal, settings: Any) -> str:
    """Return the address of the portal, with the example's pages and headers."""
    settings.ROOT_URLCONF = "tests.support.example_portal_urls"
    settings.LOGIN_URL = "oidc_authentication_init"
    settings.LOGIN_REDIRECT_URL = "portal"
    settings.LOGOUT_REDIRECT_URL = "home"
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [EXAMPLE / "portal" / "templates"]}]
    settings.MIDDLEWARE = [
        "django.middleware.security.SecurityMiddleware",
        "portal.headers.content_security_policy",
        *settings.MIDDLEWARE,
    ]
    _portal.application = WSGIHandler()
    return _portal.url


@pytest.fixture
def op(_op: CertifiedProvider, portal: str) -> CertifiedProvider:
    """The provider, with the portal as its client."""
    _op.configure(client(portal))
    return _op


@pytest.fixture(autouse=True)
def _logs_hold_no_secret(op: ProviderProcess) -> Iterator[None]:
    """Search every line that a test logs for secrets."""
    with capture_all_logs() as log:
        yield
    secrets = {SECRET, "1984-03-09", "Lake Road", *(value for _, value in op.tokens())}
    lines = "\n".join(log.lines)
    assert [secret for secret in secrets if secret in lines] == []
    assert JWT.findall(lines) == []


@pytest.fixture
def declare(op: ProviderProcess, settings: Any) -> Declare:
    """Declare the provider under each name with its options: declare(default={"max_age": 60})."""

    def declare(**named: dict[str, Any]) -> None:
        providers = {name: {**declaration(op), **options} for name, options in named.items()}
        settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": providers}

    declare(default={})
    return declare


@pytest.fixture
def new_person(chromium: Any, portal: str, op: CertifiedProvider) -> Iterator[Callable[[], Person]]:
    """Return a function that opens a new browser context."""
    contexts = []

    def new_person() -> Person:
        context = chromium.new_context()
        context.set_default_timeout(20_000)
        contexts.append(context)
        return Person(context.new_page(), portal, op.issuer)

    yield new_person
    for context in contexts:
        context.close()


@pytest.fixture
def person(new_person: Callable[[], Person], declare: Declare) -> Person:
    return new_person()


def declaration(op: ProviderProcess) -> dict[str, Any]:
    """Return the provider's declaration for PHI_OIDC."""
    return {
        "issuer": op.issuer,
        "client_id": "portal",
        "client_secret": SECRET,
        "id_token_signed_response_alg": ["PS256"],
        "ca_bundle": op.ca_bundle,
    }


def client(portal: str, client_id: str = "portal", *, provider: str = "", **metadata: Any) -> dict[str, Any]:
    """Return the portal's registration at the provider, for its default URLs or those of a named provider."""
    path = f"oidc/{provider}/callback/" if provider else "oidc/callback/"
    return {
        "client_id": client_id,
        **({} if "jwks_uri" in metadata else {"client_secret": SECRET}),
        "redirect_uris": [f"{portal}/{path}"],
        "post_logout_redirect_uris": [f"{portal}/oidc/logged-out/"],
        "subject_type": "pairwise",
        "id_token_signed_response_alg": "PS256",
        **metadata,
    }


def build_glewlwyd_client(portal: str) -> dict[str, Any]:
    """Return the portal's registration at Glewlwyd."""
    return {
        "client_id": "portal",
        "client_secret": GLEWLWYD_SECRET,
        "name": "Portal",
        "confidential": True,
        "enabled": True,
        "scope": [],
        "redirect_uri": [f"{portal}/oidc/callback/"],
        "authorization_type": ["code", "refresh_token"],
        "token_endpoint_auth_method": ["client_secret_basic"],
        # Without it, Glewlwyd makes a new pairwise subject for each token.
        "sector_identifier_uri": f"{portal}/",
        "post_logout_redirect_uris": [f"{portal}/oidc/logged-out/"],
        "backchannel_logout_uri": f"{portal}/oidc/backchannel-logout/",
        "backchannel_logout_session_required": "1",
    }


def refused() -> dict[str, str]:
    """Return the codes of all refused sign-ins by the reference on their pages."""
    return {str(event.pk): event.reason for event in events(action="login.refused")}
