"""Two providers, `clinic` (declared first) and `region`.

The portal has the same client id at both, so that only the checks of the package separate them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.testing.mock_provider import Client, DemoProvider, demo_accounts
from tests.support.http_browser import Browser, PortalResponse

SECRETS = {"clinic": "the-secret-of-the-clinic", "region": "the-secret-of-the-region"}
Declare = Callable[..., None]


@pytest.fixture(scope="session")
def _region_op() -> Iterator[DemoProvider]:
    op = DemoProvider(accounts=demo_accounts())
    with op.running():
        yield op


def register(op: DemoProvider, name: str, portal: str, *more: str) -> None:
    """Register the portal at one provider, with a secret and redirect URI of that provider."""
    uris = [f"{portal}/oidc/{name}/callback/", *more]
    op.register_client(Client("portal", SECRETS[name], uris, post_logout_redirect_uris=[f"{portal}/oidc/logged-out/"]))


@pytest.fixture
def clinic(op: DemoProvider, portal: str) -> DemoProvider:
    register(op, "clinic", portal, f"{portal}/oidc/callback/")
    return op


@pytest.fixture
def region(_region_op: DemoProvider, portal: str) -> Iterator[DemoProvider]:
    register(_region_op, "region", portal)
    with _region_op.state.lock:
        _region_op.state.tokens.clear()
        _region_op.state.id_tokens.clear()
        _region_op.state.requests.clear()
    yield _region_op
    _region_op.mutate = _region_op.intercept = None
    _region_op.state.scope_claims_in_id_token = False


@pytest.fixture
def declare(clinic: DemoProvider, region: DemoProvider, settings: Any) -> Declare:
    """Declare both providers. Call the result to declare them again with other options."""

    def declare_both(**options: dict[str, Any]) -> None:
        providers = {
            name: {
                "issuer": op.issuer,
                "client_id": "portal",
                "client_secret": SECRETS[name],
                "allow_loopback_http": True,
                "label": f"The {name}’s sign-in",
                **options.get(name, {}),
            }
            for name, op in (("clinic", clinic), ("region", region))
        }
        settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": providers}

    declare_both()
    return declare_both


def start_sign_in_at(browser: Browser, name: str) -> PortalResponse:
    return browser.start_sign_in(path=f"/oidc/{name}/authenticate/")


def callback_of(browser: Browser, name: str, op: DemoProvider, username: str = "amina") -> str:
    redirect = start_sign_in_at(browser, name)
    assert redirect.status == 302, redirect
    return op.authorize(redirect.location, username)


def sign_in_at(browser: Browser, name: str, op: DemoProvider, username: str = "amina") -> PortalResponse:
    return browser.get(callback_of(browser, name, op, username))


def assert_signed_in(page: PortalResponse, browser: Browser, op: DemoProvider) -> None:
    assert (page.status, page.location) == (302, "/portal/home/"), page.body
    assert browser.user() != ""
    assert {token.kind for token in op.active_tokens} == {"access_token", "refresh_token"}


def assert_refused(page: PortalResponse, browser: Browser, code: str, *, status: int = 403) -> None:
    event = AuditEvent.objects.filter(action="login.refused").order_by("id").last()
    assert event is not None
    assert (event.reason, page.status) == (code, status)
    assert str(event.id) in page.body
    assert browser.user() == ""


def count_requests(op: DemoProvider, path: str) -> int:
    return [request.path for request in op.requests].count(path)
