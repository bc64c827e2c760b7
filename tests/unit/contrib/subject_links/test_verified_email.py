"""Which e-mail address counts as verified by the provider."""

from typing import Any

import pytest

from django_phi_oidc.contrib.subject_links.verified_email import find_verified_email

A = "amina@example.org"


@pytest.mark.parametrize(
    ("id_token", "userinfo", "address"),
    [
        ({"email": A, "email_verified": True}, {}, A),
        ({}, {"email": A, "email_verified": True}, A),
        ({"email": A}, {"email": A, "email_verified": True}, A),
        ({"email_verified": True}, {"email": A, "email_verified": True}, A),
        ({"email": A}, {"email_verified": True}, ""),
        ({"email": A}, {"email": "other@example.org", "email_verified": True}, ""),
        ({"email": A, "email_verified": True}, {"email_verified": False}, ""),
        ({"email": A, "email_verified": "true"}, {"email": A, "email_verified": True}, ""),
        ({"email": A, "email_verified": "true"}, {}, ""),
        ({"email": A, "email_verified": 1}, {}, ""),
        ({"email": A, "email_verified": False}, {}, ""),
        ({"email": A}, {}, ""),
        ({"email": " ", "email_verified": True}, {}, ""),
        ({"email": [A], "email_verified": True}, {}, ""),
        ({"email_verified": True}, {}, ""),
        ({}, {}, ""),
    ],
    ids=repr,
)
def test_address_is_verified_by_the_source_that_states_it_and_by_no_text(
    id_token: dict[str, Any], userinfo: dict[str, Any], address: str
) -> None:
    assert find_verified_email(id_token, userinfo) == address
