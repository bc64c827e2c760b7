"""Rows as JSON values."""

from datetime import UTC, datetime

import pytest

from django_phi_oidc.contrib.common.serialized_rows import serialize_row
from django_phi_oidc.sessions.models import OIDCSession

STARTED = datetime(2026, 11, 24, 12, 0, 0, 7, tzinfo=UTC)


@pytest.mark.parametrize(("acr", "expected"), [("", None), ("urn:mfa", "urn:mfa")])
def test_times_are_iso_8601_and_empty_optional_texts_null(acr: str, expected: str | None) -> None:
    row = OIDCSession(provider="", started_at=STARTED, ended_at=None, acr=acr)
    assert serialize_row(row, "provider", "started_at", "ended_at", optional=("acr",)) == {
        "provider": "",
        "started_at": "2026-11-24T12:00:00+00:00",
        "ended_at": None,
        "acr": expected,
    }
