"""The decision whether a claim may be revealed, as a function of plain values. What is not allowed here is refused.

Spec: HL7 v3 ActReason, value set PurposeOfUse (2.16.840.1.113883.1.11.20448), as FHIR R4 expands it.
"""

from collections.abc import Mapping
from types import MappingProxyType

PURPOSES: Mapping[str, str] = MappingProxyType(
    {
        "HMARKT": "healthcare marketing",
        "HOPERAT": "healthcare operations",
        "CAREMGT": "care management",
        "DONAT": "donation",
        "FRAUD": "fraud",
        "GOV": "government",
        "HACCRED": "health accreditation",
        "HCOMPL": "health compliance",
        "HDECD": "decedent",
        "HDIRECT": "directory",
        "HDM": "healthcare delivery management",
        "HLEGAL": "legal",
        "HOUTCOMS": "health outcome measure",
        "HPRGRP": "health program reporting",
        "HQUALIMP": "health quality improvement",
        "HSYSADMIN": "health system administration",
        "LABELING": "labeling",
        "METAMGT": "metadata management",
        "MEMADMIN": "member administration",
        "MILCDM": "military command",
        "PATADMIN": "patient administration",
        "PATSFTY": "patient safety",
        "PERFMSR": "performance measure",
        "RECORDMGT": "records management",
        "SYSDEV": "system development",
        "HTEST": "test health data",
        "TRAIN": "training",
        "HPAYMT": "healthcare payment",
        "CLMATTCH": "claim attachment",
        "COVAUTH": "coverage authorization",
        "COVERAGE": "coverage under policy or program",
        "ELIGDTRM": "eligibility determination",
        "ELIGVER": "eligibility verification",
        "ENROLLM": "enrollment",
        "MILDCRG": "military discharge",
        "REMITADV": "remittance advice",
        "HRESCH": "healthcare research",
        "BIORCH": "biomedical research",
        "CLINTRCH": "clinical trial research",
        "CLINTRCHNPC": "clinical trial research without patient care",
        "CLINTRCHPC": "clinical trial research with patient care",
        "PRECLINTRCH": "preclinical trial research",
        "DSRCH": "disease specific healthcare research",
        "POARCH": "population origins or ancestry healthcare research",
        "TRANSRCH": "translational healthcare research",
        "PATRQT": "patient requested",
        "FAMRQT": "family requested",
        "PWATRNY": "power of attorney",
        "SUPNWK": "support network",
        "PUBHLTH": "public health",
        "DISASTER": "disaster",
        "THREAT": "threat",
        "TREAT": "treatment",
        "CLINTRL": "clinical trial",
        "COC": "coordination of care",
        "ETREAT": "emergency treatment",
        "BTG": "break the glass",
        "ERTREAT": "emergency room treatment",
        "POPHLTH": "population health",
    }
)
"""HL7 codes, each with what it says in English."""

PATIENT_REQUEST = "PATRQT"
"""The purpose for which persons may see their own claims, whatever these are held for."""

SESSION_MISSING = "session_missing"
PURPOSE_UNKNOWN = "purpose_unknown"
PURPOSE_NOT_DECLARED = "purpose_not_declared"
PERMISSION_MISSING = "permission_missing"
CLAIM_NOT_DECLARED = "claim_not_declared"
CLAIM_OF_SESSION = "claim_of_session"
"""The claim is held for the person's own session alone: "there is none" would be a lie to anybody else."""


def refuse_reveal(
    *, declared_purpose: str, stated_purpose: str, is_self: bool, permitted: bool, has_session: bool
) -> str | None:
    """Return the code of the rule that refuses to reveal a claim, or None: it may be revealed.

    declared_purpose: what the claim is held for; "" when it may be used for nothing but the person's own request.
    is_self: the actor is the person. permitted: the actor holds the permission to reveal claims of other persons.
    has_session: the actor acts in a session that an OP vouched for.
    """
    if not has_session:
        return SESSION_MISSING
    if not (is_self or permitted):
        return PERMISSION_MISSING
    if stated_purpose not in PURPOSES:
        return PURPOSE_UNKNOWN
    if stated_purpose == declared_purpose or (is_self and stated_purpose == PATIENT_REQUEST):
        return None
    return PURPOSE_NOT_DECLARED
