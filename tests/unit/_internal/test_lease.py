"""Leases of rows, for the model of pending revocations."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from django_phi_oidc._internal.lease import is_lease_active
from django_phi_oidc.sessions.models import PendingRevocation

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LEASE = timedelta(seconds=30)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("ends_after", "is_active"),
    [
        pytest.param(None, False, id="none"),
        pytest.param(timedelta(0), False, id="ends now"),
        pytest.param(SECOND, True, id="ends in a second"),
        pytest.param(LEASE, True, id="new"),
        pytest.param(2 * LEASE, True, id="of a clock that is a lease ahead"),
        pytest.param(2 * LEASE + SECOND, False, id="of a clock that is further ahead"),
        pytest.param(timedelta(days=3), False, id="of a clock that is days ahead"),
    ],
)
@pytest.mark.django_db
def test_c5_lease_is_active_for_a_bounded_time(ends_after: timedelta | None, is_active: bool) -> None:
    lease_until = None if ends_after is None else NOW + ends_after
    assert is_lease_active(lease_until, now=NOW, lease=LEASE) is is_active
    pk = uuid.uuid4()
    PendingRevocation.objects.create(
        id=pk, provider="default", token_type_hint="access_token", due_at=NOW, created_at=NOW, lease_until=lease_until
    )
    rows = PendingRevocation.objects.all()
    assert rows.unleased(NOW, lease=LEASE).exists() is not is_active
    assert rows.acquire_lease(pk, now=NOW, lease=LEASE) is not is_active
