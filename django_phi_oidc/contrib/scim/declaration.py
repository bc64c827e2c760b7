"""The option `scim` of a provider: its identity system manages accounts of this portal. No
Django.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...config.option_grades import LATER, RARE
from ...config.providers import ProviderDeclaration
from ...config.sections import ProviderOption
from ..common.accepted_tokens import ClientTokensDeclaration
from ..role_mapping.declaration import RoleRule, get_managed_roles

SCIM_GROUPS_CLAIM = "scim_groups"
"""In rules, the names of the groups in which SCIM clients have put the person. No claim of the
provider.
"""
SUBJECT_SCHEMA = "urn:ietf:params:scim:schemas:extension:phi_oidc:2.0:User"
"""The extension of User with the attribute `sub`. Spec: RFC 7643 3.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SCIMDeclaration(ProviderOption):
    """How SCIM clients of the provider authenticate, and how their persons are recognised at the
    sign-in.
    """

    subject: Literal["extension", "invitation"] = field(metadata=LATER)
    """`extension`: clients send the pairwise `sub` of each person in [an
    extension](../how-to/joiners-movers-leavers.md#who-the-person-is); `invitation`: each person
    enters an [activation code](../how-to/activation-codes.md), and `provisioning` is `invitation`.
    """
    access_tokens: ClientTokensDeclaration | None = field(default=None, metadata=RARE)
    """[Access tokens of the
    provider](../how-to/joiners-movers-leavers.md#access-tokens-of-the-provider), [declared
    so](#access_tokens), that are accepted in place of a client's token. Default: none.
    """

    def list_faults(self, provider: ProviderDeclaration) -> Iterator[str]:
        if self.subject == "invitation" and provider.provisioning != "invitation":
            yield "['scim']['subject'] invitation requires provisioning: invitation."
        tokens = self.access_tokens
        if tokens is not None and tokens.audience == provider.client_id:
            yield (
                "['scim']['access_tokens']['audience'] is the "
                "client_id, which is the audience of ID Tokens."
            )


def list_mixed_roles(
    rules: Mapping[str, Sequence[RoleRule]], declared: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield the provider and the name of each role that groups of SCIM and another claim both
    manage.
    """
    for provider in declared:
        group_rules = []
        claim_rules = []
        for rule in rules.get(provider, ()):
            if rule.claim == SCIM_GROUPS_CLAIM:
                group_rules.append(rule)
            else:
                claim_rules.append(rule)
        mixed_roles = get_managed_roles(group_rules) & get_managed_roles(claim_rules)
        for role in sorted(mixed_roles):
            yield provider, role.name
