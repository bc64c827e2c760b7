"""A claim of `CLAIMS`: valid and invalid declarations."""

from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc.config.claims import parse_claim
from django_phi_oidc.errors import DeclarationInvalid

pytestmark = pytest.mark.sqlite
CLAIM = {"purpose": "TREAT", "basis": "identity check", "retention": "session"}
VALID_CLAIMS: dict[str, tuple[dict[str, Any], Any]] = {
    "of the session": ({}, "session"),
    "for a day": ({"retention": timedelta(days=1)}, timedelta(days=1)),
    "for an hour in seconds": ({"retention": 3600}, timedelta(hours=1)),
    "never stored": ({"retention": None}, None),
    "essential": ({"essential": True}, "session"),
    "two members": ({"members": ("postal_code", "country")}, "session"),
    "members as JSON has them": ({"members": ["postal_code"]}, "session"),
    "a category": ({"category": "contact"}, "session"),
    "the longest category": ({"category": "c" * 32}, "session"),
    "a category with a digit": ({"category": "tier_2"}, "session"),
    "a label": ({"label": "part2"}, "session"),
    "no label": ({"label": None}, "session"),
}
INVALID_CLAIMS: dict[str, dict[str, Any]] = {
    "no purpose": {"purpose": ""},
    "a blank purpose": {"purpose": "  "},
    "a purpose that the column can't hold": {"purpose": "T" * 33},
    "a purpose that is no string": {"purpose": ["TREAT"]},
    "no basis": {"basis": ""},
    "a basis that is no string": {"basis": None},
    "zero retention": {"retention": timedelta(0)},
    "negative retention": {"retention": timedelta(days=-1)},
    "too long retention": {"retention": timedelta.max},
    "infinite retention": {"retention": float("inf")},
    "retention as another word": {"retention": "forever"},
    "retention as a boolean": {"retention": True},
    "retention as a list": {"retention": ["session"]},
    "essential as a string": {"essential": "yes"},
    "an unknown option": {"encrypt": False},
    "members as a string": {"members": "country"},
    "no members": {"members": []},
    "members as None": {"members": None},
    "a member that is no string": {"members": ["country", 5]},
    "a member without name": {"members": [""]},
    "a member with a line break": {"members": ["coun\ntry"]},
    "a member twice": {"members": ["country", "region", "country"]},
    "members as a dictionary": {"members": {"country": True}},
    "an empty category": {"category": ""},
    "a category with a capital letter": {"category": "Contact"},
    "a category with a blank": {"category": "contact data"},
    "a category with a line break": {"category": "contact\n"},
    "a category that begins with a digit": {"category": "2nd"},
    "a too long category": {"category": "c" * 33},
    "a category that is no string": {"category": ["contact"]},
    "an unknown label": {"label": "part3"},
    "an empty label": {"label": ""},
    "a label that is no string": {"label": ["part2"]},
}


@pytest.mark.parametrize(("options", "retention"), VALID_CLAIMS.values(), ids=VALID_CLAIMS)
def test_valid_claim_is_parsed(options: dict[str, Any], retention: Any) -> None:
    claim = parse_claim("birthdate", {**CLAIM, **options})
    assert (claim.name, claim.retention, claim.essential) == ("birthdate", retention, options.get("essential", False))
    assert claim.members == tuple(options.get("members", ()))
    assert (claim.category, claim.label) == (options.get("category", ""), options.get("label"))


@pytest.mark.parametrize("options", INVALID_CLAIMS.values(), ids=INVALID_CLAIMS)
def test_wrong_claim_is_refused(options: dict[str, Any]) -> None:
    parse_claim("birthdate", CLAIM)
    with pytest.raises(DeclarationInvalid, match=r"CLAIMS\['birthdate'\]"):
        parse_claim("birthdate", {**CLAIM, **options})


@pytest.mark.parametrize("missing", CLAIM)
def test_claim_without_purpose_basis_or_retention_is_refused(missing: str) -> None:
    raw = {key: value for key, value in CLAIM.items() if key != missing}
    with pytest.raises(DeclarationInvalid, match=missing):
        parse_claim("birthdate", raw)


@pytest.mark.parametrize("name", ["_claim_names", "_claim_sources"])
def test_references_to_distributed_claims_are_refused(name: str) -> None:
    assert parse_claim(name.removeprefix("_"), CLAIM).name == name.removeprefix("_")
    with pytest.raises(DeclarationInvalid, match="distributed and aggregated"):
        parse_claim(name, CLAIM)


@pytest.mark.parametrize("name", ["", 5, None, "a" * 256, "a\x00b"], ids=repr)
def test_invalid_claim_name_is_refused(name: Any) -> None:
    assert parse_claim("a" * 255, CLAIM).name == "a" * 255
    with pytest.raises(DeclarationInvalid, match="name"):
        parse_claim(name, CLAIM)
