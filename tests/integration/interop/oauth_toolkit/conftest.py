"""The portal as a client of django-oauth-toolkit."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.interop.conftest import JWT
from tests.support.django_provider import SECRET, DjangoProvider
from tests.support.log_capture import capture_all_logs


@pytest.fixture(autouse=True)
def _logs_hold_no_secret() -> Iterator[None]:
    """Search every line that a test logs for secrets, without the provider of the other tests."""
    with capture_all_logs() as log:
        yield
    lines = "\n".join(log.lines)
    assert [secret for secret in (SECRET, "1984-03-09", "Lake Road") if secret in lines] == []
    assert JWT.findall(lines) == []


@pytest.fixture
def options(toolkit: DjangoProvider) -> dict[str, Any]:
    """Return the declaration of the provider that the manual describes."""
    return {
        "issuer": toolkit.issuer,
        "client_id": "portal",
        "client_secret": SECRET,
        "ca_bundle": toolkit.ca_bundle,
        "subject_type": "public",
        "id_token_hint": "never",
    }
