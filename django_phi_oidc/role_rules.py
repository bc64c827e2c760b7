"""Which claim values of which provider give which roles, as the project declared it in `ROLES`. No Django."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

from .declarations import ClaimDeclaration
from .errors import DeclarationInvalid

Flag = Literal["is_staff", "is_superuser"]
FLAGS: tuple[Flag, ...] = get_args(Flag)
LONGEST_NAME = 150
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
    def flags(self) -> tuple[Flag, ...]:
        """What the rule says of the account itself."""
        return tuple(flag for flag in FLAGS if getattr(self, flag))

    @property
    def roles(self) -> frozenset[Role]:
        """All that the rule gives."""
        return frozenset([*(Role("group", name) for name in self.groups), *(Role("flag", flag) for flag in self.flags)])


def parse_rules(provider: str, raw: Any) -> tuple[RoleRule, ...]:
    """Return the rules that raw declares for a provider.

    Raises: DeclarationInvalid, which names the rule by its place in the list, the first being 0.
    """
    where = f"ROLES[{provider!r}]"
    if not isinstance(raw, list | tuple):
        raise DeclarationInvalid(f"{where} must be a list of rules.")
    return tuple(_rule(f"{where}[{place}]", each) for place, each in enumerate(raw))


def managed(rules: Sequence[RoleRule]) -> frozenset[Role]:
    """Return every role that a rule can give, and that a sign-in therefore takes where none does."""
    return frozenset(role for rule in rules for role in rule.roles)


def faults(
    rules: Mapping[str, Sequence[RoleRule]],
    *,
    providers: Collection[str],
    claims: Mapping[str, ClaimDeclaration],
    never_kept: Collection[str],
) -> Iterator[str]:
    """Yield, in words, why a rule could never match. never_kept: claims that no sign-in lets through."""
    for unknown in sorted(rules.keys() - set(providers)):
        yield f"ROLES[{unknown!r}]: there is no such provider."
    for provider, rule in ((provider, rule) for provider, each in rules.items() for rule in each):
        claim, where = claims.get(rule.claim), f"ROLES[{provider!r}]: the claim {rule.claim!r}"
        if rule.claim in never_kept:
            yield f"{where} is about the token, and tells of no role."
        elif claim is None:
            yield f"{where} is not declared in CLAIMS, so it is dropped at the door."
        elif claim.members and (not rule.path or rule.path[0] not in claim.members):
            yield f"{where} is kept with its declared members alone, and the path leads to none of them."


def shared(rules: Mapping[str, Sequence[RoleRule]]) -> Iterator[tuple[Role, tuple[str, ...]]]:
    """Yield each role that several providers manage, with their names."""
    by_provider = {provider: managed(each) for provider, each in rules.items()}
    for role in sorted(frozenset().union(*by_provider.values())):
        names = tuple(provider for provider, roles in by_provider.items() if role in roles)
        if len(names) > 1:
            yield role, names


def _rule(where: str, raw: Any) -> RoleRule:
    if not isinstance(raw, Mapping):
        raise DeclarationInvalid(f"{where} must be a dictionary.")
    known = {field.name: field for field in fields(RoleRule)}
    if unknown := sorted(str(key) for key in raw if key not in known):
        raise DeclarationInvalid(f"{where} has no option {', '.join(unknown)}.")
    if missing := sorted(key for key, field in known.items() if field.default is MISSING and key not in raw):
        raise DeclarationInvalid(f"{where} lacks {', '.join(missing)}.")
    if not isinstance(raw["claim"], str) or not raw["claim"]:
        raise DeclarationInvalid(f"{where}['claim'] must be the name of a claim.")
    for flag in FLAGS:
        if not isinstance(raw.get(flag, False), bool):
            raise DeclarationInvalid(f"{where}[{flag!r}] must be True or False.")
    rule = RoleRule(
        **{
            **raw,
            "values": _list(f"{where}['values']", raw["values"], of=str | int),
            "path": _list(f"{where}['path']", raw.get("path", ())),
            "groups": _list(f"{where}['groups']", raw.get("groups", ())),
        }
    )
    if not rule.values:
        raise DeclarationInvalid(f"{where}['values'] is empty.")
    if not rule.roles:
        raise DeclarationInvalid(f"{where} gives nothing: name groups, is_staff or is_superuser.")
    if wrong := [name for name in rule.groups if len(name) > LONGEST_NAME or not name.isprintable()]:
        raise DeclarationInvalid(f"{where}['groups']: {ascii(wrong[0])[:64]} is no name of a group.")
    return rule


def _list(where: str, value: Any, *, of: Any = str) -> tuple[Any, ...]:
    # A text is a list of its letters to whoever forgets the brackets.
    if not isinstance(value, list | tuple) or not all(isinstance(item, of) and item != "" for item in value):
        kinds = "texts" if of is str else "texts, whole numbers, True and False"
        raise DeclarationInvalid(f"{where} must be a list of {kinds}.")
    return tuple(value)
