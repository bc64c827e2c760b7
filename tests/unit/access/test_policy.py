"""Each rule of the decision, beside the acceptance that differs in that one thing."""

from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc.access.policy import (
    PATIENT_REQUEST,
    PURPOSES,
    AccessPolicy,
    Assurance,
    find_access_refusal,
    find_reveal_refusal,
    parse_access_policy,
    parse_required_assurance,
)
from django_phi_oidc.errors import DeclarationInvalid

PATIENT = {
    "declared_purpose": "TREAT",
    "stated_purpose": "PATRQT",
    "is_self": True,
    "is_permitted": False,
    "has_session": True,
}
CLINICIAN = {**PATIENT, "stated_purpose": "TREAT", "is_self": False, "is_permitted": True}

REFUSED = {
    "the patient, in no session of an OP": (PATIENT, {"has_session": False}, "session_missing"),
    "the clinician, in no session of an OP": (CLINICIAN, {"has_session": False}, "session_missing"),
    "somebody without the permission": (CLINICIAN, {"is_permitted": False}, "permission_missing"),
    "the patient for a purpose that nobody declared": (PATIENT, {"stated_purpose": "HMARKT"}, "purpose_not_declared"),
    "the clinician for another purpose": (CLINICIAN, {"stated_purpose": "HOPERAT"}, "purpose_not_declared"),
    "the clinician on request of a patient": (CLINICIAN, {"stated_purpose": "PATRQT"}, "purpose_not_declared"),
    "the clinician in an emergency": (CLINICIAN, {"stated_purpose": "ETREAT"}, "purpose_not_declared"),
    "no purpose": (CLINICIAN, {"stated_purpose": ""}, "purpose_unknown"),
    "no purpose, stated and declared": (
        CLINICIAN,
        {"stated_purpose": "", "declared_purpose": ""},
        "purpose_unknown",
    ),
    "a purpose that is declared and no HL7 code": (
        CLINICIAN,
        {"stated_purpose": "treatment", "declared_purpose": "treatment"},
        "purpose_unknown",
    ),
    "a code in small letters": (CLINICIAN, {"stated_purpose": "treat"}, "purpose_unknown"),
    "a claim that may be used for nothing": (CLINICIAN, {"declared_purpose": ""}, "purpose_not_declared"),
}
ALLOWED = {
    "the patient at their own request": PATIENT,
    "the patient for the declared purpose": {**PATIENT, "stated_purpose": "TREAT"},
    "the patient, whose claim may be used for nothing else": {**PATIENT, "declared_purpose": ""},
    "the clinician for the declared purpose": CLINICIAN,
    "the clinician, where the request is what was declared": {
        **CLINICIAN,
        "stated_purpose": "PATRQT",
        "declared_purpose": "PATRQT",
    },
}


@pytest.mark.parametrize("given", ALLOWED.values(), ids=ALLOWED)
def test_refuse_reveal_as_it_should_be_returns_none(given: dict[str, Any]) -> None:
    assert find_reveal_refusal(**given) is None


@pytest.mark.parametrize(("accepted", "difference", "code"), REFUSED.values(), ids=REFUSED)
def test_refuse_reveal_with_one_thing_wrong_returns_its_code(
    accepted: dict[str, Any], difference: dict[str, Any], code: str
) -> None:
    assert find_reveal_refusal(**accepted) is None
    assert find_reveal_refusal(**{**accepted, **difference}) == code


def test_purposes_hold_the_codes_that_fhir_r4_expands() -> None:
    assert len(PURPOSES) == 59
    assert {"TREAT", "ETREAT", "HPAYMT", "HOPERAT", "HRESCH", "PUBHLTH", "BTG", PATIENT_REQUEST} <= PURPOSES.keys()


def test_purposes_can_not_be_added_to() -> None:
    with pytest.raises(TypeError):
        PURPOSES["MINE"] = "whatever I like"  # type: ignore[index]


POLICY = AccessPolicy(permission="portal.view_chart", purposes=frozenset({"TREAT"}))
SEEN: dict[str, Any] = {
    "policy": POLICY,
    "has_session": True,
    "resource": "Patient/7",
    "is_permitted": True,
    "stated_purpose": "TREAT",
}
UNSEEN = {
    "no session of an OP": ({"has_session": False}, "session_missing"),
    "no resource": ({"resource": ""}, "resource_invalid"),
    "no permission": ({"is_permitted": False}, "permission_missing"),
    "no purpose": ({"stated_purpose": ""}, "purpose_unknown"),
    "a purpose that HL7 has not": ({"stated_purpose": "treat"}, "purpose_unknown"),
    "a purpose that is not the policy's": ({"stated_purpose": "HOPERAT"}, "purpose_not_declared"),
    "an empty policy": ({"policy": AccessPolicy()}, "permission_missing"),
    "a policy without a permission": ({"policy": AccessPolicy(purposes=POLICY.purposes)}, "permission_missing"),
    "a policy without a purpose": ({"policy": AccessPolicy(permission=POLICY.permission)}, "purpose_not_declared"),
}


@pytest.mark.parametrize(("difference", "code"), UNSEEN.values(), ids=UNSEEN)
def test_refuse_access_with_one_thing_wrong_returns_its_code(difference: dict[str, Any], code: str) -> None:
    assert find_access_refusal(**SEEN) is None
    assert find_access_refusal(**{**SEEN, **difference}) == code


def test_refuse_access_refuses_in_the_order_of_the_reference() -> None:
    wrong = {"has_session": False, "resource": "", "is_permitted": False, "stated_purpose": "HOPERAT"}
    codes = []
    for name in list(wrong):
        codes.append(find_access_refusal(**{**SEEN, **wrong}))
        del wrong[name]
    assert codes == ["session_missing", "resource_invalid", "permission_missing", "purpose_not_declared"]


def test_refuse_access_without_an_emergency_lets_in_for_no_purpose_beside_the_policys() -> None:
    assert [find_access_refusal(**{**SEEN, "stated_purpose": code}) for code in PURPOSES].count(None) == 1


DECLARED: dict[str, Any] = {"permission": "portal.view_chart", "purpose": None, "purposes": ["TREAT", "ETREAT"]}
UNDECLARED = {
    "no permission": ({"permission": None}, "permission is missing"),
    "a blank permission": ({"permission": " "}, "permission is missing"),
    "purposes in one text": ({"purposes": "TREAT"}, "purposes is a list"),
    "a purpose and purposes": ({"purpose": "TREAT"}, "purposes is a list"),
    "no purpose at all": ({"purposes": []}, "purposes is empty"),
    "purposes that HL7 has not": ({"purposes": ["TREAT", "fün", "fin"]}, r"code: 'f\\xfcn', 'fin'\.$"),
    "a purpose that is no text": ({"purpose": 7, "purposes": []}, r"code: 7\.$"),
    "an assurance that is none": ({"acr": "one text"}, "acr is a list"),
    "a time that is none": ({"max_age": 300}, "max_age is a timedelta"),
}


def test_declare_keeps_what_is_declared() -> None:
    several, fixed = frozenset({"TREAT", "ETREAT"}), frozenset({"TREAT"})
    assurance = Assurance(acr=("a", "b"), max_age=timedelta(minutes=1))
    permission = "portal.view_chart"
    assert parse_access_policy(**DECLARED) == AccessPolicy(permission=permission, purposes=several)
    assert parse_access_policy(permission=permission, purpose="TREAT", purposes=()) == AccessPolicy(
        permission=permission, purposes=fixed
    )
    assert parse_access_policy(**DECLARED, acr=["a", "b"], max_age=timedelta(minutes=1)) == AccessPolicy(
        permission=permission, purposes=several, assurance=assurance
    )
    assert parse_required_assurance(acr=["a", "b"], max_age=timedelta(minutes=1)) == assurance


@pytest.mark.parametrize(("difference", "message"), UNDECLARED.values(), ids=UNDECLARED)
def test_declare_with_one_thing_wrong_says_which(difference: dict[str, Any], message: str) -> None:
    parse_access_policy(**DECLARED)
    with pytest.raises(DeclarationInvalid, match=message):
        parse_access_policy(**{**DECLARED, **difference})
