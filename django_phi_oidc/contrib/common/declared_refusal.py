"""The refusal of a claim by its category or label, for disclosures with their own permission."""

from typing import Any

from ...access.part2 import lacks_consent
from ...access.policy import CONSENT_MISSING, PERMISSION_MISSING
from ...claims.categories import can_reveal
from ...config.claims import ClaimDeclaration
from ...subjects.models import PairwiseSubject


def find_declared_refusal(
    user: Any,
    declaration: ClaimDeclaration | None,
    subject: PairwiseSubject | None,
    *,
    consent: str,
) -> str | None:
    """Return the code that refuses a claim by its category or label, or None. user: None for a
    command on the server.

    It is for disclosures that have their own permission. The category of a claim that is not
    declared, or no longer declared, is unknown, so only superusers are permitted.
    """
    if declaration is None:
        is_permitted = user is None or (user.is_active and getattr(user, "is_superuser", False))
        if is_permitted:
            return None
        return PERMISSION_MISSING
    if user is not None and declaration.category and not can_reveal(user, declaration, subject):
        return PERMISSION_MISSING

    if lacks_consent(declaration.label, consent):
        return CONSENT_MISSING
    return None
