"""Columns of the admin: dates stay on one line, and other text is escaped."""

import pytest

from django_phi_oidc.contrib.common.admin_fields import keep_dates_together


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Waiting until 2026-11-27 08:40 UTC", 'Waiting until <span class="nowrap date">2026-11-27</span> 08:40 UTC'),
        ("<b>2026</b>", "&lt;b&gt;2026&lt;/b&gt;"),
        ("", ""),
    ],
)
def test_line_does_not_end_inside_a_date(text: str, html: str) -> None:
    assert keep_dates_together(text) == html
