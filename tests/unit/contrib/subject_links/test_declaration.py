"""The option `link_verified_email` of a provider: accepted and refused values."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.contrib.subject_links.declaration import EmailLinkingDeclaration
from django_phi_oidc.errors import DeclarationInvalid

PROVIDER = {"issuer": "https://op.example", "client_id": "portal", "client_secret": "a secret"}
VALID = {"accounts_created_before": "2026-10-01", "until": "2026-12-30"}
"""90 days."""


def parse(option: Any) -> EmailLinkingDeclaration | None:
    return parse_provider("default", {**PROVIDER, "link_verified_email": option}).find_option(EmailLinkingDeclaration)


def test_no_address_links_an_account_by_default() -> None:
    assert parse_provider("default", PROVIDER).find_option(EmailLinkingDeclaration) is None
    assert parse(None) is None


@pytest.mark.parametrize(
    ("first", "last"),
    [("2026-10-01", "2026-12-30"), (date(2026, 10, 1), date(2026, 10, 2))],
    ids=["90 days", "a day"],
)
def test_days_are_accepted(first: Any, last: Any) -> None:
    linking = parse({"accounts_created_before": first, "until": last})
    assert linking is not None
    assert linking.accounts_created_before == date(2026, 10, 1)


@pytest.mark.parametrize(
    "option",
    [
        {**VALID, "until": "2026-12-31"},
        {**VALID, "until": "2026-09-30"},
        {"accounts_created_before": "2026-10-01"},
        True,
        {**VALID, "until": datetime(2026, 10, 2, tzinfo=UTC)},
        {**VALID, "until": "in two weeks"},
    ],
    ids=["91 days", "ends before it begins", "no end", "for everyone", "a time", "no date"],
)
def test_other_values_are_refused(option: Any) -> None:
    assert parse(VALID) is not None
    with pytest.raises(DeclarationInvalid, match="link_verified_email"):
        parse(option)


def test_days_are_those_of_utc() -> None:
    linking = EmailLinkingDeclaration(accounts_created_before=date(2026, 11, 1), until=date(2026, 12, 31))
    tokyo_morning = datetime.fromisoformat("2026-11-01T08:00:00+09:00")
    assert not linking.is_in_force(tokyo_morning)
    assert linking.is_in_force(tokyo_morning + timedelta(hours=1))
