"""The purposes of use that events name. No Django.

Spec: HL7 v3 ActReason, value set PurposeOfUse (2.16.840.1.113883.1.11.20448), as FHIR R4 expands
it.
"""

from collections.abc import Mapping
from types import MappingProxyType

_ = str  # Marks a text for makemessages; the code that displays it translates it.
PURPOSES: Mapping[str, str] = MappingProxyType(
    {
        "HMARKT": _("healthcare marketing"),
        "HOPERAT": _("healthcare operations"),
        "CAREMGT": _("care management"),
        "DONAT": _("donation"),
        "FRAUD": _("fraud"),
        "GOV": _("government"),
        "HACCRED": _("health accreditation"),
        "HCOMPL": _("health compliance"),
        "HDECD": _("decedent"),
        "HDIRECT": _("directory"),
        "HDM": _("healthcare delivery management"),
        "HLEGAL": _("legal"),
        "HOUTCOMS": _("health outcome measure"),
        "HPRGRP": _("health program reporting"),
        "HQUALIMP": _("health quality improvement"),
        "HSYSADMIN": _("health system administration"),
        "LABELING": _("labeling"),
        "METAMGT": _("metadata management"),
        "MEMADMIN": _("member administration"),
        "MILCDM": _("military command"),
        "PATADMIN": _("patient administration"),
        "PATSFTY": _("patient safety"),
        "PERFMSR": _("performance measure"),
        "RECORDMGT": _("records management"),
        "SYSDEV": _("system development"),
        "HTEST": _("test health data"),
        "TRAIN": _("training"),
        "HPAYMT": _("healthcare payment"),
        "CLMATTCH": _("claim attachment"),
        "COVAUTH": _("coverage authorization"),
        "COVERAGE": _("coverage under policy or program"),
        "ELIGDTRM": _("eligibility determination"),
        "ELIGVER": _("eligibility verification"),
        "ENROLLM": _("enrollment"),
        "MILDCRG": _("military discharge"),
        "REMITADV": _("remittance advice"),
        "HRESCH": _("healthcare research"),
        "BIORCH": _("biomedical research"),
        "CLINTRCH": _("clinical trial research"),
        "CLINTRCHNPC": _("clinical trial research without patient care"),
        "CLINTRCHPC": _("clinical trial research with patient care"),
        "PRECLINTRCH": _("preclinical trial research"),
        "DSRCH": _("disease specific healthcare research"),
        "POARCH": _("population origins or ancestry healthcare research"),
        "TRANSRCH": _("translational healthcare research"),
        "PATRQT": _("patient requested"),
        "FAMRQT": _("family requested"),
        "PWATRNY": _("power of attorney"),
        "SUPNWK": _("support network"),
        "PUBHLTH": _("public health"),
        "DISASTER": _("disaster"),
        "THREAT": _("threat"),
        "TREAT": _("treatment"),
        "CLINTRL": _("clinical trial"),
        "COC": _("coordination of care"),
        "ETREAT": _("emergency treatment"),
        "BTG": _("break the glass"),
        "ERTREAT": _("emergency room treatment"),
        "POPHLTH": _("population health"),
    }
)
"""HL7 codes with their English labels; `descriptions.get_purpose_label` translates them."""

PATIENT_REQUEST = "PATRQT"
"""The purpose for which persons may see their own claims, in addition to the declared one."""

EMERGENCY_PURPOSES = ("ETREAT", "BTG")

EXPORT_PURPOSES = (PATIENT_REQUEST, "FAMRQT", "PWATRNY", "HLEGAL", "HCOMPL", "GOV")
"""The purposes for which an officer may export all data of a person."""
