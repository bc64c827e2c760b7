"""Findings about a provider: what `phi_oidc doctor` prints, of this package and of its apps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from ...config.providers import ProviderDeclaration
from ...errors import SignInRefused
from ...extensions import Registry
from ...http.transport import Transport
from ...oidc.metadata import ProviderMetadata
from ...oidc.remedies import find_remedy

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


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataDiagnosis:
    """What the source of a provider's metadata returns to `phi_oidc doctor`."""

    findings: Sequence[ProviderFinding]
    members: Mapping[str, Any] | None = None
    """The published metadata; None if they could not be fetched."""
    parse_metadata: Callable[[], ProviderMetadata] | None = None
    """Validates the members. Raises: TransportError, MetadataError. None if there are none."""


class MetadataDiagnoser(Protocol):
    """Examines the metadata of some providers in place of OIDC Discovery."""

    def is_declared(self, declaration: ProviderDeclaration) -> bool:
        """Return whether the metadata of the provider come from the source of this app only."""

    def diagnose(
        self,
        declaration: ProviderDeclaration,
        *,
        transport: Transport,
        timeout_seconds: float,
        now: datetime,
    ) -> MetadataDiagnosis:
        """Fetch the metadata for the doctor. timeout_seconds: for each document."""


metadata_diagnosers: Registry[MetadataDiagnoser] = Registry(
    "Examine the metadata and keys of a provider in place of OIDC Discovery."
)


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
