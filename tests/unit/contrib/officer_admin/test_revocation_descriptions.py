"""The state of a revocation as one sentence."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.officer_admin.revocation_descriptions import describe_revocation
from django_phi_oidc.sessions.models import PendingRevocation, RevocationStatus

NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)
SOON = NOW + timedelta(minutes=2)


@pytest.fixture(autouse=True)
def _clock(settings: Any) -> Iterator[None]:
    settings.TIME_ZONE = "Europe/Berlin"
    with clock.override_clock(lambda: NOW):
        yield


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "Waits for the first attempt at 12:02 UTC"),
        ({"due_at": NOW + timedelta(days=1)}, "Waits for the first attempt at 2027-03-02 12:00 UTC"),
        ({"created_at": SOON}, "Waits for the end of the session"),
        (
            {"last_fault": "http_503", "attempts": 2},
            "Revocation failed: the server answered 503; next attempt at 12:02 UTC",
        ),
        (
            {"last_fault": "http_503 other", "attempts": 2},
            "Revocation failed: the server answered 503; next attempt at 12:02 UTC",
        ),
        (
            {"last_fault": "http_400 invalid_scope", "status": RevocationStatus.REFUSED},
            "Refused for good: the server answered 400 (the provider does not accept the requested scope)",
        ),
        (
            {"last_fault": "transport_timeout", "attempts": 10, "status": RevocationStatus.ABANDONED},
            "Abandoned after 10 attempts: the provider did not answer in time",
        ),
        ({"status": RevocationStatus.DONE, "attempts": 1}, "Revoked by the provider"),
        (
            {"status": RevocationStatus.UNSUPPORTED, "last_fault": "revocation_unsupported"},
            "Not revoked: the provider does not revoke such tokens",
        ),
    ],
)
def test_revocation_is_described_by_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    row = PendingRevocation(**{"created_at": NOW, "due_at": SOON, **fields})
    assert describe_revocation(row) == sentence
