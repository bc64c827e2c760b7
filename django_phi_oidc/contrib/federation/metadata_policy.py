"""Metadata policies: the superiors in a trust chain restrict the metadata of the entity at its
beginning.

A policy is a dictionary: entity type → metadata parameter → operator → value. Spec: OpenID
Federation 1.0 6.1.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from ...errors import MetadataError
from .errors import FederationCode

OPERATORS = ("value", "add", "default", "one_of", "subset_of", "superset_of", "essential")
"""The standard operators, in their order of application."""
LIST_OPERATORS = ("add", "one_of", "subset_of", "superset_of")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.#-]{1,64}")

ParameterPolicy = Mapping[str, Any]
MetadataPolicy = Mapping[str, Mapping[str, ParameterPolicy]]


def merge_policies(claims: Iterable[Any]) -> MetadataPolicy:
    """Return the policy of a trust chain.

    claims: the `metadata_policy` of its subordinate statements, the most superior one first.
    Operators that are not standard are ignored; a statement that declares one as critical is
    refused before.
    Raises: MetadataError. Spec: OpenID Federation 1.0 6.1.4.1.
    """
    merged: dict[str, dict[str, ParameterPolicy]] = {}
    for claim in claims:
        for entity_type, policies in _get_object(claim).items():
            of_type = merged.setdefault(entity_type, {})
            for name, policy in _get_object(policies).items():
                parsed = _parse_parameter_policy(name, _get_object(policy))
                if name in of_type:
                    of_type[name] = _merge_parameter_policies(name, of_type[name], parsed)
                else:
                    of_type[name] = parsed
    return merged


def apply_policy(
    metadata: Mapping[str, Any], *, policy: Mapping[str, ParameterPolicy]
) -> dict[str, Any]:
    """Return the metadata of one entity type, as its policy changes them.

    Raises: MetadataError if they violate it. Spec: OpenID Federation 1.0 6.1.4.2.
    """
    resolved = dict(metadata)
    for name, operators in policy.items():
        present: Sequence[Any]
        if name in metadata:
            present = [_split_scope(name, metadata[name])]
        else:
            present = []

        for operator in OPERATORS:
            if operator in operators:
                present = _APPLICATIONS[operator](name, present, operators[operator])
        resolved.pop(name, None)
        if present:
            if name == "scope" and _is_text_list(present[0]):
                resolved[name] = " ".join(present[0])
            else:
                resolved[name] = present[0]
    return resolved


def _parse_parameter_policy(name: str, policy: Mapping[str, Any]) -> ParameterPolicy:
    """Return the standard operators, with values of the right type, in an allowed combination."""
    parsed = {}
    for operator in OPERATORS:
        if operator in policy:
            parsed[operator] = _split_scope(name, policy[operator])
    for operator, operand in parsed.items():
        if operator in LIST_OPERATORS and (not isinstance(operand, list) or None in operand):
            _fail(name, f"{operator} is no list")
    if not isinstance(parsed.get("essential", False), bool):
        _fail(name, "essential is no boolean")
    if parsed.get("default", "") is None:
        _fail(name, "default is null")
    _validate_combination(name, parsed)
    return parsed


def _merge_parameter_policies(
    name: str, superior: ParameterPolicy, subordinate: ParameterPolicy
) -> ParameterPolicy:
    """Spec: OpenID Federation 1.0 6.1.3.1 (operator value merge)."""
    merged = {**superior, **subordinate}
    for operator in superior.keys() & subordinate.keys():
        upper = superior[operator]
        lower = subordinate[operator]
        match operator:
            case "value" | "default":
                if not _is_equal(upper, lower):
                    _fail(name, f"superiors set a different {operator}")
                merged[operator] = upper
            case "add" | "superset_of":
                merged[operator] = _unite(upper, lower)
            case "one_of" | "subset_of":
                merged[operator] = _intersect(upper, lower)
                if operator == "one_of" and not merged[operator]:
                    _fail(name, "no value is left of one_of")
            case "essential":
                merged[operator] = upper or lower
    _validate_combination(name, merged)
    return merged


def _validate_combination(name: str, policy: ParameterPolicy) -> None:
    """Spec: OpenID Federation 1.0 6.1.3.1 (combination with other operators)."""
    if "one_of" in policy and policy.keys() & {"add", "subset_of", "superset_of"}:
        _fail(name, "one_of is combined with an operator of lists")
    subset_of = policy.get("subset_of")
    superset_of = policy.get("superset_of", [])
    added = policy.get("add", [])
    if subset_of is not None and not _contains(subset_of, [*superset_of, *added]):
        _fail(name, "subset_of lacks a value of add or superset_of")
    if "value" not in policy:
        return
    value = policy["value"]
    if value is None and (policy.get("essential") or policy.keys() - {"value", "essential"}):
        _fail(name, "value is null, and another operator sets or requires one")
    if "one_of" in policy and not _contains(policy["one_of"], [value]):
        _fail(name, "value is not in one_of")
    if policy.keys() & {"add", "subset_of", "superset_of"}:
        is_valid = (
            isinstance(value, list)
            and _contains(value, [*added, *superset_of])
            and (subset_of is None or _contains(subset_of, value))
        )
        if not is_valid:
            _fail(name, "value contradicts add, subset_of or superset_of")


# A parameter is passed as a list with its value; an empty list: it is absent, which differs from
# null.


def _apply_value(name: str, present: Sequence[Any], operand: Any) -> Sequence[Any]:
    if operand is None:
        return []
    return [operand]


def _apply_add(name: str, present: Sequence[Any], operand: Any) -> Sequence[Any]:
    if present:
        return [_unite(_get_list(name, present[0]), operand)]
    return [operand]


def _apply_default(name: str, present: Sequence[Any], operand: Any) -> Sequence[Any]:
    return present or [operand]


def _apply_one_of(name: str, present: Sequence[Any], operand: Any) -> Sequence[Any]:
    if present and (isinstance(present[0], list) or not _contains(operand, present)):
        _fail(name, "the value is not in one_of")
    return present


def _apply_subset_of(name: str, present: Sequence[Any], operand: Any) -> Sequence[Any]:
    if present:
        return [_intersect(_get_list(name, present[0]), operand)]
    return present


def _apply_superset_of(name: str, present: Sequence[Any], operand: Any) -> Sequence[Any]:
    if present and not _contains(_get_list(name, present[0]), operand):
        _fail(name, "a value of superset_of is missing")
    return present


def _apply_essential(name: str, present: Sequence[Any], operand: Any) -> Sequence[Any]:
    if operand and not present:
        _fail(name, "it is essential, and missing")
    return present


_APPLICATIONS: Mapping[str, Callable[[str, Sequence[Any], Any], Sequence[Any]]] = {
    "value": _apply_value,
    "add": _apply_add,
    "default": _apply_default,
    "one_of": _apply_one_of,
    "subset_of": _apply_subset_of,
    "superset_of": _apply_superset_of,
    "essential": _apply_essential,
}


def _split_scope(name: str, value: Any) -> Any:
    """Return the values of `scope`, which is a string, as a list. Spec: OpenID Federation 1.0
    6.1.3.1.8.
    """
    if name == "scope" and isinstance(value, str):
        return value.split()
    return value


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _encode(value: Any) -> str:
    """Return a text that is equal for equal JSON. Python's `==` takes true for 1."""
    return json.dumps(value, sort_keys=True)


def _is_equal(one: Any, other: Any) -> bool:
    """Lists are compared as sets, as all operators use them."""
    if isinstance(one, list) and isinstance(other, list):
        return _contains(one, other) and _contains(other, one)
    return _encode(one) == _encode(other)


def _contains(values: Iterable[Any], required: Iterable[Any]) -> bool:
    return set(map(_encode, values)) >= set(map(_encode, required))


def _unite(values: Sequence[Any], added: Sequence[Any]) -> list[Any]:
    known = set(map(_encode, values))
    return [*values, *(value for value in added if _encode(value) not in known)]


def _intersect(values: Sequence[Any], allowed: Sequence[Any]) -> list[Any]:
    known = set(map(_encode, allowed))
    result = []
    for value in values:
        if _encode(value) in known:
            result.append(value)
    return result


def _get_list(name: str, value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return _fail(name, "it is no list")


def _get_object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise MetadataError(FederationCode.METADATA_POLICY_ERROR, "metadata_policy is malformed.")
    return value


def _fail(name: str, reason: str) -> NoReturn:
    # The name is text of the federation: only a plain one may appear in logs.
    if _PLAIN_NAME.fullmatch(name):
        shown = name
    else:
        shown = "a parameter"
    raise MetadataError(
        FederationCode.METADATA_POLICY_ERROR, f"Metadata policy of {shown}: {reason}."
    )
