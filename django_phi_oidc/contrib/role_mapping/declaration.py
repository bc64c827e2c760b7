"""The option `ROLES`: which claim values of which provider grant which roles. No Django."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from ...access.roles import ACCOUNT_FLAGS, AccountFlag, Role
from ...config.claims import ClaimDeclaration
from ...config.option_grades import LATER
from ...config.option_parsers import (
    checked,
    fail,
    mapping_of,
    parse_declaration,
    parse_each,
    parse_nonempty,
    parse_strings,
)

MAX_GROUP_NAME_LENGTH = 150
"""Characters of a Django group's name."""


_parse_values = checked(
    partial(parse_strings, item_type=str | int, items="strings, integers, True and False"),
    bool,
    "is empty",
)
_parse_groups = checked(
    parse_strings,
    lambda groups: all(
        len(name) <= MAX_GROUP_NAME_LENGTH and name.isprintable() for name in groups
    ),
    f"has a name that no group can have: {MAX_GROUP_NAME_LENGTH} printable characters at most",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRule:
    """A user who has one of these values in that claim gets these roles."""

    claim: Annotated[str, parse_nonempty] = field(metadata=LATER)
    """The name of a claim in `CLAIMS`, usually with the retention None; or `scim_groups`, the
    person's [SCIM groups](../how-to/joiners-movers-leavers.md#groups-and-roles).
    """
    values: Annotated[tuple[str | int, ...], _parse_values] = field(metadata=LATER)
    """Strings, integers, True, False: the claim's value, or an item of its list, must equal one
    exactly, including its type.
    """
    path: tuple[str, ...] = field(default=(), metadata=LATER)
    """For a claim that is an object: the members that lead to the values, outermost first. Default:
    none: the claim itself.
    """
    groups: Annotated[tuple[str, ...], _parse_groups] = field(default=(), metadata=LATER)
    """Names of Django groups."""
    is_staff: bool = field(default=False, metadata=LATER)
    """True: the rule grants it."""
    is_superuser: bool = field(default=False, metadata=LATER)
    """True: the rule grants it."""

    @property
    def flags(self) -> tuple[AccountFlag, ...]:
        """The account flags that the rule grants."""
        result = []
        for flag in ACCOUNT_FLAGS:
            if getattr(self, flag):
                result.append(flag)
        return tuple(result)

    @property
    def roles(self) -> frozenset[Role]:
        """The groups and flags that the rule grants."""
        return frozenset(
            [
                *(Role("group", name) for name in self.groups),
                *(Role("flag", flag) for flag in self.flags),
            ]
        )


def parse_role_rules(provider: str, raw: Any) -> tuple[RoleRule, ...]:
    """Return the rules that raw declares for a provider.

    Raises: DeclarationInvalid with all mistakes; a rule is named by its index.
    """
    path = f"ROLES[{provider!r}]"
    if not isinstance(raw, list | tuple):
        fail(path, "must be a list of rules")
    parse = partial(parse_declaration, RoleRule, list_faults=_list_rule_faults)
    return tuple(
        parse_each(lambda index, rule: parse(f"{path}[{index}]", rule), enumerate(raw)).values()
    )


def _list_rule_faults(rule: RoleRule) -> Iterator[str]:
    if not rule.roles:
        yield " grants nothing: name groups, is_staff or is_superuser."


def get_managed_roles(rules: Sequence[RoleRule]) -> frozenset[Role]:
    """Return every role that a rule can grant; a sign-in removes those of them that no rule
    grants.
    """
    managed_roles = set()
    for rule in rules:
        for role in rule.roles:
            managed_roles.add(role)
    return frozenset(managed_roles)


class SuppliedClaim(NamedTuple):
    """A claim that an app supplies, and not the provider."""

    provider_option: str
    """The option of a provider that the app needs."""
    providers: Collection[str]
    """The providers that have it."""


def list_role_rule_faults(
    rules: Mapping[str, Sequence[RoleRule]],
    *,
    providers: Collection[str],
    claims: Mapping[str, ClaimDeclaration],
    protocol_claims: Collection[str],
    supplied_claims: Mapping[str, SuppliedClaim] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield why a rule could never match. protocol_claims: claims about the token, which sign-ins
    drop. supplied_claims: by name.
    """
    for unknown in sorted(rules.keys() - set(providers)):
        yield f"ROLES[{unknown!r}]: there is no such provider."
    for provider, rule in ((provider, rule) for provider, own in rules.items() for rule in own):
        claim = claims.get(rule.claim)
        subject = f"ROLES[{provider!r}]: the claim {rule.claim!r}"
        supplied = supplied_claims.get(rule.claim)
        if supplied is not None:
            if provider not in supplied.providers or rule.path:
                option = supplied.provider_option
                yield f"{subject} needs the option {option} of the provider, and no path."
        elif rule.claim in protocol_claims:
            yield f"{subject} is about the token and can't give a role."
        elif claim is None:
            yield f"{subject} is not declared in CLAIMS, so sign-ins drop it."
        elif claim.members and (not rule.path or rule.path[0] not in claim.members):
            yield (
                f"{subject} is reduced to its declared members, and the path leads to none of them."
            )


def list_shared_roles(
    rules: Mapping[str, Sequence[RoleRule]],
) -> Iterator[tuple[Role, tuple[str, ...]]]:
    """Yield each role that several providers manage, with their names."""
    by_provider = {provider: get_managed_roles(own) for provider, own in rules.items()}
    for role in sorted(frozenset().union(*by_provider.values())):
        names = tuple(provider for provider, roles in by_provider.items() if role in roles)
        if len(names) > 1:
            yield role, names


@dataclass(frozen=True, kw_only=True)
class RoleMappingOptions:
    """The option of the mapping from claims to roles."""

    ROLES: Annotated[Mapping[str, tuple[RoleRule, ...]], mapping_of(parse_role_rules)] = field(
        default_factory=dict, metadata=LATER
    )
    """Provider → list of [rules](#a-rule-of-roles) that map claim values to groups, `is_staff` and
    `is_superuser`. Default: none: groups are not changed.
    """
