"""The portal in the test process, and a demo provider on a socket."""

from collections.abc import Iterator
from typing import Any

import pytest

from django_phi_oidc.testing.mock_provider import Client, DemoProvider, demo_accounts


@pytest.fixture(scope="session")
def _op() -> Iterator[DemoProvider]:
    op = DemoProvider(
        [Client("portal", "s3cret", ["http://testserver/oidc/callback/"])],
        accounts=demo_accounts(),
        signing_alg="ES256",
    )
    with op.running():
        yield op


@pytest.fixture
def op(_op: DemoProvider, settings: Any) -> Iterator[DemoProvider]:
    """The provider that the portal has declared, without hooks and tokens."""
    declaration = {
        "issuer": _op.issuer,
        "client_id": "portal",
        "client_secret": "s3cret",
        "allow_loopback_http": True,
    }
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration}}
    settings.ROOT_URLCONF = "tests.support.portal_urls"
    settings.LOGIN_URL = "oidc_authentication_init"
    with _op.state.lock:
        _op.state.tokens.clear()
    yield _op
    _op.mutate = None
