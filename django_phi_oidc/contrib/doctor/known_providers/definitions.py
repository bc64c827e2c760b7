"""What is known of a provider: marks in its metadata, faults, and the recipe of its settings. No
Django.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ....config.providers import ProviderDeclaration
from ....errors import Code

Need = Literal["required", "advised", "example", "visible"]
ClientKeyType = Literal["", "RSA", "P-256", "P-384"]
KeyAuthMethod = Literal["private_key_jwt", "self_signed_tls_client_auth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOption:
    """An option of the declaration, with its value as in the settings."""

    name: str
    value: Any
    reason: str
    """Sentences: the comment in the settings, and the remedy of the doctor."""
    need: Need = "advised"
    """`required`: without it, sign-ins fail. `advised`: sign-ins work without it. `example`: the
    project chooses the value. `visible`: the metadata show that it is needed, so other checks of
    the doctor compare it.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings with which the portal signs users in at a provider."""

    issuer: str
    """The issuer, or an example of one."""
    issuer_note: str = ""
    """How to find the issuer. Empty: all clients of the provider have the same issuer."""
    client_key_type: ClientKeyType = ""
    """Of the key with which the client authenticates; empty: a client secret."""
    key_auth_method: KeyAuthMethod = "private_key_jwt"
    """`token_endpoint_auth_method` with this key."""
    decryption_key_type: ClientKeyType = ""
    """Of a second key, for which the provider encrypts tokens; empty: it encrypts none."""
    needs_certificate: bool = False
    """The key needs a certificate: from a certification authority, or a self-signed one for mutual
    TLS.
    """
    trust_anchor: str = ""
    """Of the federation (OpenID Federation) that the provider is in; empty: metadata are
    discovered.
    """
    options: tuple[RecipeOption, ...] = ()
    """All options but issuer, client id, secret, key and federation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFault:
    """A deviation that the metadata does not show."""

    check: str
    code: str
    text: str
    remedy: str
    level: Literal["warning", "failure"] = "warning"
    applies: Callable[[ProviderDeclaration], bool] = lambda declaration: True
    """Whether the fault matters with this declaration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProvider:
    """A product or service whose deviations are known."""

    name: str
    marks: tuple[tuple[str, str], ...]
    """Members of the metadata and patterns, all of which match. In a list, one value has to
    match.
    """
    slug: str = ""
    """Its name for `phi_oidc init`; empty: it has neither recipe nor page."""
    page: str = ""
    """Of the manual, in `how-to/providers/`. Default: the slug."""
    recipe: Recipe | None = None
    requires_id_token_hint: bool = False
    """A logout request without `id_token_hint` ends on an error page or an empty page."""
    required_end_session_parameter: str = ""
    """A logout request without this parameter ends on an error page."""
    faults: tuple[KnownFault, ...] = ()

    def get_page(self) -> str:
        return f"docs/how-to/providers/{self.page or self.slug}.md"

    def has_mark(self, members: Mapping[str, Any]) -> bool:
        """Return whether these metadata, whose types are not checked, are those of the provider."""
        return all(
            _has_matching_text(members.get(member), pattern) for member, pattern in self.marks
        )


PUBLIC_SUBJECTS = RecipeOption(
    name="subject_type",
    value="public",
    need="visible",
    reason="Every client gets the same sub, so others can recognize the person (W001).",
)
NO_REVOCATION = RecipeOption(
    name="revocation",
    value="best_effort",
    need="visible",
    reason="It has no revocation endpoint: tokens stay valid until they expire (W002).",
)
NO_REAUTHENTICATION = RecipeOption(
    name="reauthentication",
    value="never",
    need="required",
    reason="An authentication after a timeout can be neither requested nor verified (W034).",
)
UNVERIFIED_REAUTHENTICATION = RecipeOption(
    name="reauthentication",
    value="request",
    need="required",
    reason="An authentication after a timeout is requested, not verified (W034).",
)


def _has_matching_text(value: Any, pattern: str) -> bool:
    """value: a text or a list."""
    return any(isinstance(item, str) and re.search(pattern, item) for item in _list_values(value))


def _list_values(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [value]


def list_differences(recipe: Recipe, declaration: ProviderDeclaration) -> Iterator[RecipeOption]:
    """Yield the options of the recipe that the declaration lacks, or has with another value."""
    for option in recipe.options:
        declared = getattr(declaration, option.name)
        if option.need == "example":
            if not declared:
                yield option
        elif option.need != "visible" and not _contains(declared, option.value):
            yield option


def _contains(declared: Any, value: Any) -> bool:
    """Return whether a declared option has the value, or if it has several, all of these."""
    if isinstance(value, dict):
        return value.items() <= dict(declared).items()
    if isinstance(value, list):
        return set(value) <= set(declared)
    return bool(declared == value)


def build_unsupported_acr_fault(name: str, remedy: str) -> KnownFault:
    """Return the fault of a provider whose ID Tokens contain no requested `acr`."""
    return KnownFault(
        check="assurance",
        code=Code.ACR_INSUFFICIENT,
        level="failure",
        text=f"{name} returns no requested acr, so acr_values refuse every user",
        remedy=remedy,
        applies=lambda declaration: bool(declaration.acr_values),
    )
