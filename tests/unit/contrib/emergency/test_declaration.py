"""The option `EMERGENCY`: valid and invalid declarations."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.config.option_parsers import parse_declaration
from django_phi_oidc.contrib.emergency.declaration import EmergencyDeclaration
from django_phi_oidc.errors import DeclarationInvalid


def parse_emergency(raw: Any) -> EmergencyDeclaration:
    return parse_declaration(EmergencyDeclaration, "EMERGENCY", raw)


VALID: dict[str, Any] = {"permissions": {"portal.view_chart": "See a chart"}, "mail_to": ["privacy@example.org"]}


def test_defaults_and_values_from_json() -> None:
    declared = parse_emergency(VALID)
    assert (declared.longest, declared.spool) == (timedelta(hours=1), None)
    declared = parse_emergency({**VALID, "longest": 600, "spool": "/var/spool/emergency"})
    assert (declared.longest, declared.spool) == (timedelta(minutes=10), Path("/var/spool/emergency"))
    assert parse_emergency({**VALID, "longest": timedelta(hours=24)}).longest == timedelta(days=1)
    assert declared.review_within == timedelta(days=3)
    assert parse_emergency({**VALID, "review_within": 3600}).review_within == timedelta(hours=1)


def test_f8_limit_and_assurance_have_defaults() -> None:
    declared = parse_emergency(VALID)
    assert (declared.max_unreviewed, declared.acr) == (10, None)
    declared = parse_emergency({**VALID, "max_unreviewed": 1, "acr": ["silver", "gold"]})
    assert (declared.max_unreviewed, declared.acr) == (1, ("silver", "gold"))
    assert parse_emergency({**VALID, "max_unreviewed": 1000, "acr": []}).acr == ()


INVALID: list[tuple[str, Any]] = [
    ("permissions", {}),
    ("permissions", ["portal.view_chart"]),
    ("permissions", {"view_chart": "See"}),
    ("permissions", {"portal.view_chart": " "}),
    ("permissions", {"django_phi_oidc.reveal_storedclaim": "Reveal"}),
    ("permissions", {"phi_oidc_emergency.review_emergencyaccess": "Review"}),
    ("mail_to", []),
    ("mail_to", "privacy@example.org"),
    ("mail_to", ["privacy"]),
    ("mail_to", ["a@b.example, c@d.example"]),
    ("mail_to", ["a@b.example\n"]),
    ("longest", timedelta(seconds=59)),
    ("longest", timedelta(hours=24, seconds=1)),
    ("longest", 86401),
    ("longest", True),
    ("longest", "1h"),
    ("longest", float("nan")),
    ("max_unreviewed", 0),
    ("max_unreviewed", 1001),
    ("max_unreviewed", True),
    ("max_unreviewed", "10"),
    ("review_within", timedelta(minutes=59)),
    ("review_within", timedelta(days=90, seconds=1)),
    ("review_within", "3d"),
    ("acr", "gold"),
    ("acr", [1]),
    ("acr", ["silver gold"]),
    ("acr", [""]),
    ("spool", "spool"),
    ("spool", 7),
    ("unknown", 1),
]


@pytest.mark.parametrize(("name", "value"), INVALID, ids=map(str, INVALID))
def test_wrong_option_is_refused(name: str, value: Any) -> None:
    parse_emergency(VALID)
    with pytest.raises(DeclarationInvalid, match="EMERGENCY"):
        parse_emergency({**VALID, name: value})


def test_missing_permissions_are_refused() -> None:
    for invalid in ([], None, {"mail_to": VALID["mail_to"]}):
        with pytest.raises(DeclarationInvalid, match="EMERGENCY"):
            parse_emergency(invalid)
