"""Numbers of rows, by one SELECT."""

from datetime import UTC, datetime
from typing import Any

import pytest

from django_phi_oidc.contrib.officer_admin.row_counts import count_rows
from django_phi_oidc.replay.models import UsedIdentifier

NOW = datetime(2026, 11, 24, 16, 5, 9, 123456, tzinfo=UTC)


@pytest.mark.django_db
def test_count_rows_counts_up_to_the_limit_by_one_select(django_assert_num_queries: Any) -> None:
    for number in range(5):
        UsedIdentifier.objects.create(digest=str(number), kind="state" if number < 3 else "nonce", until=NOW)
    rows = UsedIdentifier.objects.order_by("until")
    with django_assert_num_queries(1):
        assert count_rows([rows.filter(kind="state"), rows, rows.filter(kind="%s")], limit=4, using="default") == [
            3,
            4,
            0,
        ]
    with django_assert_num_queries(0):
        assert count_rows([], limit=4, using="default") == []
