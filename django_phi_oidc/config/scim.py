"""The setting `SCIM`: the providers whose clients may provision accounts of this portal. No Django."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ._parsing import parse_declaration
from .providers import ProviderDeclaration
from .roles import SCIM_GROUPS_CLAIM, RoleRule, get_managed_roles

SUBJECT_SCHEMA = "urn:ietf:params:scim:schemas:extension:phi_oidc:2.0:User"
"""The extension of User with the attribute `sub`. Spec: RFC 7643 3.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SCIMDeclaration:
    """How the persons that SCIM clients of a provider send are recognised at their sign-in."""

    provider: str
    subject: Literal["extension", "invitation"]
    """`extension`: clients send the pairwise `sub` of each person in
    [an extension](../how-to/joiners-movers-leavers.md#who-the-person-is); `invitation`: each person enters an
    [activation code](../how-to/activation-codes.md) at the first sign-in, and `provisioning` of the provider is
    `invitation`."""


def parse_scim(provider: str, raw: Any) -> SCIMDeclaration:
    """Return the declaration of a provider. Raises: DeclarationInvalid with all mistakes."""
    return parse_declaration(SCIMDeclaration, f"SCIM[{provider!r}]", raw, provider=provider)


def list_scim_faults(
    declared: Mapping[str, SCIMDeclaration], *, providers: Mapping[str, ProviderDeclaration]
) -> Iterator[str]:
    """Yield what makes a declaration useless."""
    for name, scim in declared.items():
        if name not in providers:
            yield f"SCIM[{name!r}]: there is no such provider."
        elif scim.subject == "invitation" and providers[name].provisioning != "invitation":
            yield f"SCIM[{name!r}]['subject'] is 'invitation', but the provider accepts no activation codes."


def list_mixed_roles(rules: Mapping[str, Sequence[RoleRule]], declared: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the provider and the name of each role that groups of SCIM and another claim both manage."""
    for provider in declared:
        own = rules.get(provider, ())
        by_group = get_managed_roles([rule for rule in own if rule.claim == SCIM_GROUPS_CLAIM])
        by_claim = get_managed_roles([rule for rule in own if rule.claim != SCIM_GROUPS_CLAIM])
        yield from ((provider, role.name) for role in sorted(by_group & by_claim))
