"""The label `part2`, for substance use disorder records: the consent and the notice of a
disclosure.

Spec: 42 CFR 2.31 to 2.33, as amended by 89 FR 12472. NOT checked: that the referenced consent
exists, is valid, and covers the disclosure.
"""

import re
from typing import Any

PART2 = "part2"
NOTICE = (
    "This record which has been disclosed to you is protected by Federal confidentiality rules (42 "
    "CFR part 2). These rules prohibit you from using or disclosing this record, or testimony that "
    "describes the information contained in this record, in any civil, criminal, administrative, "
    "or legislative proceedings by any Federal, State, or local authority, against the patient, "
    "unless authorized by the consent of the patient, except as provided at 42 CFR 2.12(c)(5) or "
    "as authorized by a court in accordance with 42 CFR 2.64 or 2.65. In addition, the Federal "
    "rules prohibit you from making any other use or disclosure of this record unless at least one "
    "of the following applies: (i) Further use or disclosure is expressly permitted by the written "
    "consent of the individual whose information is being disclosed in this record or as otherwise "
    "permitted by 42 CFR part 2. (ii) You are a covered entity or business associate and have "
    "received the record for treatment, payment, or health care operations, or (iii) You have "
    "received the record from a covered entity or business associate as permitted by 45 CFR part "
    "164, subparts A and E. A general authorization for the release of medical or other "
    "information is NOT sufficient to meet the required elements of written consent to further use "
    "or redisclose the record (see 42 CFR 2.31)."
)
"""For pages and documents, in the words of the rule. Spec: 42 CFR 2.32(a)(1)."""
SHORT_NOTICE = "42 CFR part 2 prohibits unauthorized use or disclosure of these records."
"""For the response header. Spec: 42 CFR 2.32(a)(2)."""
NOTICE_SECTION = "42 CFR 2.32(a)(1)"
SHORT_NOTICE_SECTION = "42 CFR 2.32(a)(2)"
"""The `notice` of events: the statement that accompanies the disclosure."""
# A key and not a text: only ASCII, without blanks and "@", and short enough to be recorded in full.
_CONSENT_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


def lacks_consent(label: str | None, consent: object) -> bool:
    """Return whether a disclosure with this label needs a reference to a consent, and `consent` is
    not a reference.
    """
    return label == PART2 and not (isinstance(consent, str) and _CONSENT_PATTERN.fullmatch(consent))


def get_disclosure_detail(consent: object, *, has_response: bool) -> dict[str, Any]:
    """Return the detail of the event of a labelled disclosure. has_response: a response gets the
    header.
    """
    if not lacks_consent(PART2, consent):
        detail = {"consent": consent}
    else:
        detail = {}
    return {**detail, **({"notice": SHORT_NOTICE_SECTION} if has_response else {})}
