"""The portal as a client of Glewlwyd and LemonLDAP::NG."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.interop.conftest import JWT
from tests.integration.interop.debian.pages import Visitor
from tests.support.glewlwyd import SECRET, Glewlwyd
from tests.support.lemonldap import LemonLDAP
from tests.support.log_capture import capture_all_logs

Declare = Callable[..., None]


@pytest.fixture(autouse=True)
def _logs_hold_no_secret() -> Iterator[None]:
    """Search every line that a test logs for secrets, without the provider of the other tests."""
    with capture_all_logs() as log:
        yield
    lines = "\n".join(log.lines)
    assert [secret for secret in (SECRET, "1984-03-09") if secret in lines] == []
    assert JWT.findall(lines) == []


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
