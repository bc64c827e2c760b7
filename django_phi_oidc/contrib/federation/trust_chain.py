"""Trust chains: the statements that lead from an entity to a trust anchor. Spec: OpenID Federation
1.0 4, 6.2, 10.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NoReturn
from urllib.parse import urlsplit

from ...errors import MetadataError
from ...oidc.jwks import JSONWebKeySet
from .entity_statement import FEDERATION_ENTITY, EntityStatement, verify_entity_statement
from .errors import FederationCode
from .metadata_policy import apply_policy, merge_policies

MAX_STATEMENTS = 8
"""Of a chain: at most five intermediates. Federations in use have one, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustChain:
    """A valid trust chain. Only `validate_trust_chain` creates one."""

    entity_identifiers: tuple[str, ...]
    """Of the subject, its superiors, and the trust anchor."""
    expires_at: datetime
    federation_keys: JSONWebKeySet = field(repr=False)
    """Of the subject."""
    metadata: Mapping[str, Any] = field(repr=False)
    """Of the subject as an entity of the requested type, with all metadata policies applied."""
    trust_mark_types: tuple[str, ...] = ()
    """As the subject states them. NOT verified."""


def validate_trust_chain(
    statements: Sequence[EntityStatement],
    *,
    trust_anchor: str,
    trust_anchor_keys: JSONWebKeySet,
    entity_type: str,
    now: datetime,
    leeway: timedelta,
) -> TrustChain:
    """Return the trust chain of the subject of the first statement, an entity of that type.

    statements: the entity configuration of the subject, the statement of each superior about the
    entity before, and the entity configuration of the trust anchor.
    Raises: MetadataError. Spec: OpenID Federation 1.0 4, 6.2, 10.2 to 10.4.
    """
    if not 3 <= len(statements) <= MAX_STATEMENTS:
        _fail("it is too long, or has no statement of a superior")
    subject, *subordinate_statements, anchor = statements
    if not subject.is_configuration or not anchor.is_configuration or anchor.sub != trust_anchor:
        _fail("it does not lead from an entity to the trust anchor")
    if any(statement.is_configuration for statement in subordinate_statements):
        _fail("it has a further entity configuration")
    if (
        any(lower.iss != upper.sub for lower, upper in pairwise(statements[1:]))
        or subject.sub != statements[1].sub
    ):
        _fail("a statement is not about the issuer of the one before")
    identifiers = (subject.sub, *(statement.iss for statement in subordinate_statements))
    if len(set(identifiers)) < len(identifiers):
        _fail("it is a loop")
    _validate_authority_hints(subject, superior=statements[1].iss)
    # From the trust anchor down: no key is used before its superior has stated it.
    keys = trust_anchor_keys
    for statement in reversed(statements):
        verify_entity_statement(statement, keys=keys, now=now, leeway=leeway)
        keys = statement.keys
    verify_entity_statement(subject, keys=subject.keys, now=now, leeway=leeway)
    for position, statement in enumerate(subordinate_statements):
        _validate_constraints(statement, subordinates=identifiers[: position + 1])
    return TrustChain(
        entity_identifiers=identifiers,
        expires_at=min(statement.expires_at for statement in statements),
        federation_keys=subject.keys,
        metadata=_resolve_metadata(subject, subordinate_statements, entity_type=entity_type),
        trust_mark_types=_list_trust_mark_types(subject),
    )


def _validate_authority_hints(subject: EntityStatement, *, superior: str) -> None:
    """Spec: OpenID Federation 1.0 3.2: otherwise the graph of the federation is not well-formed."""
    if superior not in subject.claims.get("authority_hints", ()):
        _fail("the entity does not name its superior")


def _validate_constraints(statement: EntityStatement, *, subordinates: Sequence[str]) -> None:
    """Unknown constraints are ignored. subordinates: of the issuer, its immediate one last.

    Spec: OpenID Federation 1.0 6.2, 6.2.1, 6.2.2.
    """
    constraints = statement.claims.get("constraints", {})
    if not isinstance(constraints, dict):
        _fail("constraints are malformed")
    limit = constraints.get("max_path_length", MAX_STATEMENTS)
    if not isinstance(limit, int) or isinstance(limit, bool) or not len(subordinates) - 1 <= limit:
        _fail("it violates max_path_length")
    naming = constraints.get("naming_constraints", {})
    if not isinstance(naming, dict) or not all(map(_is_string_list, naming.values())):
        _fail("naming_constraints are malformed")
    for identifier in subordinates:
        hostname = urlsplit(identifier).hostname or ""
        if not _is_allowed_host(hostname.rstrip("."), naming):
            _fail("it violates naming_constraints")


def _is_allowed_host(host: str, naming: Mapping[str, Sequence[str]]) -> bool:
    """naming: the `naming_constraints`."""
    if "permitted" in naming and not _is_in_any_subtree(host, naming["permitted"]):
        return False
    return not _is_in_any_subtree(host, naming.get("excluded", ()))


def _is_in_any_subtree(host: str, names: Sequence[str]) -> bool:
    return any(_is_in_subtree(host, name) for name in names)


def _is_in_subtree(host: str, name: str) -> bool:
    """A name with a period in front stands for all hosts below it. Spec: RFC 5280 4.2.1.10
    (URI).
    """
    if name.startswith("."):
        return host.endswith(name.lower())
    return host == name.lower()


def _resolve_metadata(
    subject: EntityStatement, subordinate_statements: Sequence[EntityStatement], *, entity_type: str
) -> dict[str, Any]:
    """Return the metadata: of the subject, replaced by its immediate superior, then restricted by
    all policies.

    Spec: OpenID Federation 1.0 3.1.1 (metadata), 6.1.4, 6.2.3.
    """
    metadata = subject.find_metadata(entity_type)
    for statement in subordinate_statements:
        allowed = statement.claims.get("constraints", {}).get("allowed_entity_types", [entity_type])
        if not _is_string_list(allowed):
            _fail("allowed_entity_types is malformed")
        if entity_type not in (*allowed, FEDERATION_ENTITY):
            metadata = None
    if metadata is None:
        _fail(f"the entity is no {entity_type}, or may be none")
    metadata = {**metadata, **(subordinate_statements[0].find_metadata(entity_type) or {})}
    policies = []
    for statement in reversed(subordinate_statements):
        policies.append(statement.claims.get("metadata_policy", {}))
    return apply_policy(metadata, policy=merge_policies(policies).get(entity_type, {}))


def _list_trust_mark_types(subject: EntityStatement) -> tuple[str, ...]:
    """`id` is the name of earlier drafts, which Italy's federation uses."""
    marks = subject.claims.get("trust_marks")
    if isinstance(marks, list):
        members = []
        for mark in marks:
            if isinstance(mark, dict):
                members.append(mark)
    else:
        members = []

    names = (mark.get("trust_mark_type", mark.get("id")) for mark in members)
    mark_types = []
    for name in names:
        if isinstance(name, str):
            mark_types.append(name)
    return tuple(mark_types)


def _is_string_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _fail(reason: str) -> NoReturn:
    raise MetadataError(FederationCode.TRUST_CHAIN_INVALID, f"Trust chain: {reason}.")
