"""Labels of the purposes of use that `policy` lists."""

from django.utils.text import capfirst
from django.utils.translation import gettext

from .policy import PATIENT_REQUEST, PURPOSES

EXPORT_PURPOSES = (PATIENT_REQUEST, "FAMRQT", "PWATRNY", "HLEGAL", "HCOMPL", "GOV")
"""The purposes for which an officer may export all data of a person."""


def get_purpose_label(code: str) -> str:
    """Return the translated HL7 label of a purpose, or the code itself if HL7 does not define
    it.
    """
    if code in PURPOSES:
        return capfirst(gettext(PURPOSES[code]))
    return code
