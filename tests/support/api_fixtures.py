"""The demo provider on a socket, and an app with access tokens of a user."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.crypto import keyring
from django_phi_oidc.subjects.linking import get_or_create_account
from django_phi_oidc.testing.mock_provider import Client as Registered
from django_phi_oidc.testing.mock_provider import DemoProvider, Resource, SigningKey, create_signing_keys, demo_accounts
from tests.support.guarded_views import ASKED, HELD, PERMISSION, RAN
from tests.support.log_capture import capture_all_logs, leaks
from tests.support.relying_party_fixtures import Relying
from tests.support.session_fixtures import BACKEND, SecureClient

API, OTHER_API = "https://portal.example/api", "https://lab.example/api"
SCOPES = {"chart.read": [PERMISSION], "chart.write": ["portal.change_chart"]}
APP = "https://portal.example/app/cb"
EVERYTHING = {"databases": ["default", "phi_audit"], "transaction": True}

CHALLENGES = 'Bearer realm="api", DPoP realm="api", algs="ES256 PS256 EdDSA Ed25519"'
"""To a request without credentials."""

Declare = Callable[..., None]


@pytest.fixture(scope="session")
def op_keys() -> dict[str, SigningKey]:
    """Create the keys once: RSA keys are slow to generate."""
    return create_signing_keys()


@pytest.fixture
def op(op_keys: dict[str, SigningKey]) -> Iterator[DemoProvider]:
    secret = "p:ss w+rd%ü"
    clients = [
        Registered("portal", secret, ["https://portal.example/oidc/callback/"]),
        Registered("app", secret, [APP]),
    ]
    op = DemoProvider(clients, demo_accounts(), keys=op_keys, signing_alg="ES256")
    op.register_resource(Resource(API, list(SCOPES)))
    op.register_resource(Resource(OTHER_API, ["chart.read"]))
    with op.running():
        yield op


@pytest.fixture(autouse=True)
def _hospital(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = "tests.support.api_views"
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    for recorded in (HELD, ASKED, RAN):
        recorded.clear()
    yield
    HELD.clear()


@pytest.fixture(autouse=True)
def _logs_hold_no_secret(request: pytest.FixtureRequest) -> Iterator[None]:
    """Search each log line for secrets, also those of refused requests."""
    with capture_all_logs() as log:
        yield
    ops = [value for value in request.node.funcargs.values() if isinstance(value, DemoProvider)]
    assert leaks("\n".join(log.lines), ops) == []


@pytest.fixture
def declare(op: DemoProvider, settings: Any) -> Declare:
    """Return a function that declares the provider and its API with options: declare(method="introspection")."""

    def declare(provider: dict[str, Any] | None = None, **api: Any) -> None:
        settings.PHI_OIDC = {
            **settings.PHI_OIDC,
            "PROVIDERS": {
                "default": {
                    "issuer": op.issuer,
                    "client_id": "portal",
                    "client_secret": "p:ss w+rd%ü",
                    "allow_loopback_http": True,
                    **(provider or {}),
                }
            },
            "API": {"default": {"audience": API, "method": "jwt", "scopes": SCOPES, **api}},
        }

    declare()
    return declare


@dataclass
class App:
    """An app in the portal's sector that acts on behalf of amina."""

    relying: Relying
    user: Any
    client: Client

    def tokens(self, *, resource: str = API, scope: str = "openid chart.read", **changes: Any) -> dict[str, Any]:
        """Return the token response for a sign-in of amina at the app."""
        code = self.relying.callback(scope=scope, **changes)["code"]
        response = self.relying.redeem(code, resource=resource or None)
        assert response.status == 200, response.body
        return dict(response.json)

    def token(self, **options: Any) -> str:
        return str(self.tokens(**options)["access_token"])

    def get(self, path: str, token: str = "", **extra: Any) -> Any:
        """Send a request to the portal's API."""
        return self.client.get(path, headers={"Authorization": f"Bearer {token}"} if token else {}, **extra)


@pytest.fixture
def app(op: DemoProvider, declare: Declare, transactional_db: None) -> App:
    users = get_user_model()._default_manager
    linked = get_or_create_account(
        issuer=op.issuer,
        sub=op.get_subject("amina", "app"),
        keys=keyring.get_keys("subject"),
        create_user=lambda: users.create_user(username="amina"),
        origin=Origin(),
        provider="default",
        now=clock.now(),
    )
    return App(relying=Relying(op=op, client_id="app", redirect_uri=APP), user=linked.user, client=SecureClient())


def refusals() -> list[tuple[str, str, str]]:
    """Return reason, provider and outcome of each refused request, oldest first."""
    events = AuditEvent.objects.filter(action="api.refused").order_by("id")
    return [(event.reason, event.provider, event.outcome) for event in events]


def decisions() -> list[tuple[str, str, str, str]]:
    """Return action, reason, resource and detail of each access decision, oldest first."""
    events = AuditEvent.objects.filter(action__startswith="access.").order_by("id")
    return [(event.action, event.reason, event.resource, event.detail) for event in events]
