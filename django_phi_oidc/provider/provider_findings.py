"""Findings about a provider: what `phi_oidc doctor` prints, of this package and of its apps."""

from dataclasses import dataclass
from typing import Literal

from ..errors import SignInRefused
from ..oidc.remedies import find_remedy

FindingLevel = Literal["ok", "warning", "failure"]
"""warning: it works but should be fixed, or cannot be determined. failure: sign-ins are refused, or
are not safe.
"""
_MAX_TEXT_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFinding:
    """One line of the doctor."""

    check: str
    level: FindingLevel
    text: str
    code: str = ""
    """Of the rule, or a code of the doctor; empty when it is ok."""
    remedy: str = ""


def sanitize_text(text: str) -> str:
    """Return text, which may come from the provider, as safe for a terminal: ASCII without
    look-alike characters.
    """
    if not (text.isascii() and text.isprintable()):
        text = ascii(text)
    return text[:_MAX_TEXT_LENGTH]


def diagnose_request_error(
    check: str, error: SignInRefused, *, prefix: str = ""
) -> ProviderFinding:
    """Return the failure of a request. prefix: of its text."""
    remedy = find_remedy(error.code, getattr(error, "error", "")) or "Ask the provider."
    text = sanitize_text(f"{prefix}{error}")
    return ProviderFinding(check=check, level="failure", code=error.code, text=text, remedy=remedy)
