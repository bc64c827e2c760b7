"""Fixtures: a transmitter, a portal on a socket that receives its events by push, and signed-in persons."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_phi_oidc.testing.mock_provider import Client, DemoProvider
from tests.support.protocol_fixtures import (  # noqa: F401 -- fixtures
    declare,
    freshness,
    jwks,
    keys,
    make_response,
    metadata,
    now,
    private_keys,
    sign,
)
from tests.support.security_events import AUTHORIZATION
from tests.support.session_fixtures import SignedIn, sign_in  # noqa: F401 -- fixture
from tests.unit.sessions import logout_token_provider
from tests.unit.sessions.logout_token_provider import SECRET, _signing_provider, declaration, portal  # noqa: F401
from tests.unit.sessions.provider_sessions import name

SUB, SID = "sub-canary", "sid-canary"
Declare = Callable[..., None]


@pytest.fixture
def declare_signals(transmitter: DemoProvider, settings: Any) -> Declare:
    """declare_signals(delivery="poll", …): declare the transmitter with these options of `signals`."""

    def declare_signals(**options: Any) -> None:
        signals = {"delivery": "push", **options}
        if signals["delivery"] == "push":
            signals.setdefault("push_authorization", AUTHORIZATION)
        logout_token_provider.declare(settings, default=declaration(transmitter, signals=signals))

    return declare_signals


@pytest.fixture
def transmitter(_signing_provider: DemoProvider, portal: str, settings: Any) -> Iterator[DemoProvider]:
    """Yield the portal's default provider, which pushes events."""
    op = _signing_provider
    op.register_client(Client("portal", SECRET, [f"{portal}/oidc/callback/"]))
    signals = {"delivery": "push", "push_authorization": AUTHORIZATION}
    logout_token_provider.declare(settings, default=declaration(op, signals=signals))
    op.requests.clear()
    op.state.event_streams.clear()
    yield op
    op.mutate = op.intercept = None
    op.signing_alg = "RS256"
    op.state.client_tokens.clear()


@pytest.fixture
def amina(sign_in: Callable[..., SignedIn], transmitter: DemoProvider) -> SignedIn:
    """Return a person with the transmitter's SUB and a session with its SID."""
    return name(sign_in(), sub=SUB, sid=SID, issuer=transmitter.issuer)


@pytest.fixture
def jonas(sign_in: Callable[..., SignedIn], transmitter: DemoProvider) -> SignedIn:
    """Return another person of the transmitter."""
    return name(sign_in(), sub="another-sub", sid="another-sid", issuer=transmitter.issuer)
