"""Which claim values of which provider give which roles, as the project declared it in `ROLES`. No Django."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

from ..errors import DeclarationInvalid
from .providers import ClaimDeclaration

AccountFlag = Literal["is_staff", "is_superuser"]
ACCOUNT_FLAGS: tuple[AccountFlag, ...] = get_args(AccountFlag)
MAX_GROUP_NAME_LENGTH = 150
"""Characters of a Django group's name."""


class Role(NamedTuple):
    """A Django group by its name, or one of the two flags of an account."""

    kind: Literal["group", "flag"]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRule:
    """Whoever has one of these values in that claim has these roles."""

    claim: str
    """The name of a claim that `CLAIMS` declares, as a rule with the retention None."""
    values: tuple[str | int, ...]
    """List of texts, whole numbers, True, False: one of them, compared exactly (a text is no number, and True is not
    1), must be the claim's value or in its list."""
    path: tuple[str, ...] = ()
    """Of a claim that is an object: the names of the members that lead to the values, from the outermost on.
    Default: none: the claim itself."""
    groups: tuple[str, ...] = ()
    """Names of Django groups."""
    is_staff: bool = False
    """True: the rule gives it."""
    is_superuser: bool = False
    """True: the rule gives it."""

    @property
    def flags(self) -> tuple[AccountFlag, ...]:
        """What the rule says of the account itself."""
        return tuple(flag for flag in ACCOUNT_FLAGS if getattr(self, flag))

    @property
    def roles(self) -> frozenset[Role]:
        """All that the rule gives."""
        return frozenset([*(Role("group", name) for name in self.groups), *(Role("flag", flag) for flag in self.flags)])


def parse_role_rules(provider: str, raw: Any) -> tuple[RoleRule, ...]:
    """Return the rules that raw declares for a provider.

    Raises: DeclarationInvalid, which names the rule by its place in the list, the first being 0.
    """
    where = f"ROLES[{provider!r}]"
    if not isinstance(raw, list | tuple):
        raise DeclarationInvalid(f"{where} must be a list of rules.")
    return tuple(_parse_rule(f"{where}[{place}]", each) for place, each in enumerate(raw))


def get_managed_roles(rules: Sequence[RoleRule]) -> frozenset[Role]:
    """Return every role that a rule can give, and that a sign-in therefore takes where none does."""
    return frozenset(role for rule in rules for role in rule.roles)


def list_role_rule_faults(
    rules: Mapping[str, Sequence[RoleRule]],
    *,
    providers: Collection[str],
    claims: Mapping[str, ClaimDeclaration],
    protocol_claims: Collection[str],
) -> Iterator[str]:
    """Yield, in words, why a rule could never match. never_kept: claims that no sign-in lets through."""
    for unknown in sorted(rules.keys() - set(providers)):
        yield f"ROLES[{unknown!r}]: there is no such provider."
    for provider, rule in ((provider, rule) for provider, each in rules.items() for rule in each):
        claim, where = claims.get(rule.claim), f"ROLES[{provider!r}]: the claim {rule.claim!r}"
        if rule.claim in protocol_claims:
            yield f"{where} is about the token, and tells of no role."
        elif claim is None:
            yield f"{where} is not declared in CLAIMS, so it is dropped at the door."
        elif claim.members and (not rule.path or rule.path[0] not in claim.members):
            yield f"{where} is kept with its declared members alone, and the path leads to none of them."


def list_shared_roles(rules: Mapping[str, Sequence[RoleRule]]) -> Iterator[tuple[Role, tuple[str, ...]]]:
    """Yield each role that several providers manage, with their names."""
    by_provider = {provider: get_managed_roles(each) for provider, each in rules.items()}
    for role in sorted(frozenset().union(*by_provider.values())):
        names = tuple(provider for provider, roles in by_provider.items() if role in roles)
        if len(names) > 1:
            yield role, names


def _parse_rule(option_path: str, raw: Any) -> RoleRule:
    if not isinstance(raw, Mapping):
        raise DeclarationInvalid(f"{option_path} must be a dictionary.")
    known = {field.name: field for field in fields(RoleRule)}
    if unknown := sorted(str(key) for key in raw if key not in known):
        raise DeclarationInvalid(f"{option_path} has no option {', '.join(unknown)}.")
    if missing := sorted(key for key, field in known.items() if field.default is MISSING and key not in raw):
        raise DeclarationInvalid(f"{option_path} lacks {', '.join(missing)}.")
    if not isinstance(raw["claim"], str) or not raw["claim"]:
        raise DeclarationInvalid(f"{option_path}['claim'] must be the name of a claim.")
    for flag in ACCOUNT_FLAGS:
        if not isinstance(raw.get(flag, False), bool):
            raise DeclarationInvalid(f"{option_path}[{flag!r}] must be True or False.")
    rule = RoleRule(
        **{
            **raw,
            "values": _parse_list(f"{option_path}['values']", raw["values"], item_type=str | int),
            "path": _parse_list(f"{option_path}['path']", raw.get("path", ())),
            "groups": _parse_list(f"{option_path}['groups']", raw.get("groups", ())),
        }
    )
    if not rule.values:
        raise DeclarationInvalid(f"{option_path}['values'] is empty.")
    if not rule.roles:
        raise DeclarationInvalid(f"{option_path} gives nothing: name groups, is_staff or is_superuser.")
    if wrong := [name for name in rule.groups if len(name) > MAX_GROUP_NAME_LENGTH or not name.isprintable()]:
        raise DeclarationInvalid(f"{option_path}['groups']: {ascii(wrong[0])[:64]} is no name of a group.")
    return rule


def _parse_list(option_path: str, value: Any, *, item_type: Any = str) -> tuple[Any, ...]:
    # A text is a list of its letters to whoever forgets the brackets.
    if not isinstance(value, list | tuple) or not all(isinstance(item, item_type) and item != "" for item in value):
        kinds = "texts" if item_type is str else "texts, whole numbers, True and False"
        raise DeclarationInvalid(f"{option_path} must be a list of {kinds}.")
    return tuple(value)
