"""Each rule of the policy, next to the acceptance that differs in one thing."""

from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc.access.policy import (
    AccessPolicy,
    Assurance,
    find_access_refusal,
    find_reveal_refusal,
    parse_access_policy,
    parse_required_assurance,
)
from django_phi_oidc.audit.purposes import PURPOSES
from django_phi_oidc.errors import DeclarationInvalid

PATIENT = {
    "declared_purpose": "TREAT",
    "stated_purpose": "PATRQT",
    "is_self": True,
    "is_permitted": False,
    "has_session": True,
    "lacks_consent": False,
}
CLINICIAN = {**PATIENT, "stated_purpose": "TREAT", "is_self": False, "is_permitted": True}

REFUSED = {
    "the patient without a session": (PATIENT, {"has_session": False}, "session_missing"),
    "the clinician without a session": (CLINICIAN, {"has_session": False}, "session_missing"),
    "a clinician without the permission": (CLINICIAN, {"is_permitted": False}, "permission_missing"),
    "the patient for an undeclared purpose": (PATIENT, {"stated_purpose": "HMARKT"}, "purpose_not_declared"),
    "the clinician for another purpose": (CLINICIAN, {"stated_purpose": "HOPERAT"}, "purpose_not_declared"),
    "the clinician on request of a patient": (CLINICIAN, {"stated_purpose": "PATRQT"}, "purpose_not_declared"),
    "the clinician in an emergency": (CLINICIAN, {"stated_purpose": "ETREAT"}, "purpose_not_declared"),
    "no purpose": (CLINICIAN, {"stated_purpose": ""}, "purpose_unknown"),
    "no purpose, stated and declared": (
        CLINICIAN,
        {"stated_purpose": "", "declared_purpose": ""},
        "purpose_unknown",
    ),
    "a declared purpose that is no HL7 code": (
        CLINICIAN,
        {"stated_purpose": "treatment", "declared_purpose": "treatment"},
        "purpose_unknown",
    ),
    "a code in lower case": (CLINICIAN, {"stated_purpose": "treat"}, "purpose_unknown"),
    "a claim without a purpose": (CLINICIAN, {"declared_purpose": ""}, "purpose_not_declared"),
    "the clinician without a consent": (CLINICIAN, {"lacks_consent": True}, "consent_missing"),
}
ALLOWED = {
    "the patient at their own request": PATIENT,
    "the patient for the declared purpose": {**PATIENT, "stated_purpose": "TREAT"},
    "the patient for a claim without a purpose": {**PATIENT, "declared_purpose": ""},
    "the patient without a consent": {**PATIENT, "lacks_consent": True},
    "the clinician for the declared purpose": CLINICIAN,
    "the clinician for a declared request": {
        **CLINICIAN,
        "stated_purpose": "PATRQT",
        "declared_purpose": "PATRQT",
    },
}


@pytest.mark.parametrize("arguments", ALLOWED.values(), ids=ALLOWED)
def test_permitted_reveal_has_no_refusal(arguments: dict[str, Any]) -> None:
    assert find_reveal_refusal(**arguments) is None


@pytest.mark.parametrize(("accepted", "difference", "code"), REFUSED.values(), ids=REFUSED)
def test_each_violated_reveal_rule_returns_its_code(
    accepted: dict[str, Any], difference: dict[str, Any], code: str
) -> None:
    assert find_reveal_refusal(**accepted) is None
    assert find_reveal_refusal(**{**accepted, **difference}) == code


POLICY = AccessPolicy(permission="portal.view_chart", purposes=frozenset({"TREAT"}))
GRANTED: dict[str, Any] = {
    "policy": POLICY,
    "has_session": True,
    "resource": "Patient/7",
    "is_permitted": True,
    "stated_purpose": "TREAT",
}
DENIED = {
    "no session": ({"has_session": False}, "session_missing"),
    "no resource": ({"resource": ""}, "resource_invalid"),
    "no permission": ({"is_permitted": False}, "permission_missing"),
    "no purpose": ({"stated_purpose": ""}, "purpose_unknown"),
    "an unknown purpose": ({"stated_purpose": "treat"}, "purpose_unknown"),
    "a purpose that is not the policy's": ({"stated_purpose": "HOPERAT"}, "purpose_not_declared"),
    "no consent": ({"lacks_consent": True}, "consent_missing"),
    "no consent, and a weak sign-in": (
        {"lacks_consent": True, "assurance_refusal": "acr_insufficient"},
        "consent_missing",
    ),
    "an empty policy": ({"policy": AccessPolicy()}, "permission_missing"),
    "a policy without a permission": ({"policy": AccessPolicy(purposes=POLICY.purposes)}, "permission_missing"),
    "a policy without a purpose": ({"policy": AccessPolicy(permission=POLICY.permission)}, "purpose_not_declared"),
}


@pytest.mark.parametrize(("difference", "code"), DENIED.values(), ids=DENIED)
def test_each_violated_access_rule_returns_its_code(difference: dict[str, Any], code: str) -> None:
    assert find_access_refusal(**GRANTED) is None
    assert find_access_refusal(**{**GRANTED, **difference}) == code


def test_access_rules_are_checked_in_the_documented_order() -> None:
    wrong = {"has_session": False, "resource": "", "is_permitted": False, "stated_purpose": "HOPERAT"}
    codes = []
    for name in list(wrong):
        codes.append(find_access_refusal(**{**GRANTED, **wrong}))
        del wrong[name]
    assert codes == ["session_missing", "resource_invalid", "permission_missing", "purpose_not_declared"]


def test_without_an_emergency_only_the_policys_purposes_are_accepted() -> None:
    assert [find_access_refusal(**{**GRANTED, "stated_purpose": code}) for code in PURPOSES].count(None) == 1


VALID_DECLARATION: dict[str, Any] = {
    "permission": "portal.view_chart",
    "purpose": None,
    "purposes": ["TREAT", "ETREAT"],
}
INVALID_DECLARATIONS = {
    "no permission": ({"permission": None}, "permission is missing"),
    "a blank permission": ({"permission": " "}, "permission is missing"),
    "purposes as a string": ({"purposes": "TREAT"}, "purposes must be a list"),
    "a purpose and purposes": ({"purpose": "TREAT"}, "purposes must be a list"),
    "no purpose at all": ({"purposes": []}, "purposes is empty"),
    "unknown purposes": ({"purposes": ["TREAT", "fün", "fin"]}, r"code: 'f\\xfcn', 'fin'\.$"),
    "a purpose that is no string": ({"purpose": 7, "purposes": []}, r"code: 7\.$"),
    "an invalid acr": ({"acr": "a string"}, "acr is a list"),
    "an invalid max_age": ({"max_age": 300}, "max_age is a timedelta"),
    "an unknown label": ({"label": "part3", "has_consent": True}, "label must be 'part2'"),
    "a label without a function for the consent": ({"label": "part2"}, "label and consent require each other"),
    "a function for the consent without a label": ({"has_consent": True}, "label and consent require each other"),
}


def test_valid_declaration_is_parsed() -> None:
    several, fixed = frozenset({"TREAT", "ETREAT"}), frozenset({"TREAT"})
    assurance = Assurance(acr=("a", "b"), max_age=timedelta(minutes=1))
    permission = "portal.view_chart"
    assert parse_access_policy(**VALID_DECLARATION) == AccessPolicy(permission=permission, purposes=several)
    assert parse_access_policy(permission=permission, purpose="TREAT", purposes=()) == AccessPolicy(
        permission=permission, purposes=fixed
    )
    assert parse_access_policy(**VALID_DECLARATION, acr=["a", "b"], max_age=timedelta(minutes=1)) == AccessPolicy(
        permission=permission, purposes=several, assurance=assurance
    )
    assert parse_required_assurance(acr=["a", "b"], max_age=timedelta(minutes=1)) == assurance
    assert parse_access_policy(**VALID_DECLARATION, label="part2", has_consent=True).label == "part2"


@pytest.mark.parametrize(("difference", "message"), INVALID_DECLARATIONS.values(), ids=INVALID_DECLARATIONS)
def test_invalid_declaration_raises_with_its_reason(difference: dict[str, Any], message: str) -> None:
    parse_access_policy(**VALID_DECLARATION)
    with pytest.raises(DeclarationInvalid, match=message):
        parse_access_policy(**{**VALID_DECLARATION, **difference})
