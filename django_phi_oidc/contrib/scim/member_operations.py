"""Operations of a PATCH on the members of a group, as sets of ids: scim2-models compares each with
every member.

An operation that selects members otherwise than by their id is left to scim2-models. Spec: RFC 7644
3.5.2.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scim2_models import PatchOp
from scim2_models.path import CompareOperator, Comparison

from .schemas import Group
from .scim_groups import MemberChange

_MEMBERS = "members"
_KEPT = ("value", "$ref", "type", "display")
"""Sub-attributes of a member. Only the id, `value`, is stored."""


class _NotByIdError(Exception):
    """The operation selects, or changes, members otherwise than by their ids."""


def split_member_operations(patch: PatchOp[Group]) -> tuple[MemberChange, list[Any]] | None:
    """Return what the operations change about members, and the other operations; None if
    scim2-models must apply all.

    The order between the two does not matter, because they change different attributes. Requires: a
    validated patch.
    """
    change = MemberChange()
    others = list[Any]()
    try:
        for operation in patch.operations or ():
            path: Any = operation.path
            if path is None and isinstance(operation.value, Mapping):
                change, other = _split_value(operation, change)
                if other is not None:
                    others += [other]
            elif _is_about_members(path):
                change = _apply(operation.op.value, path.value_filter, operation.value, change)
            else:
                others.append(operation)
    except _NotByIdError:
        return None
    return change, others


def _split_value(operation: Any, change: MemberChange) -> tuple[MemberChange, Any]:
    """Return the change and the operation without its members; None in place of an operation that
    has nothing else.
    """
    # A name with a colon may be that of a schema, whose attributes are the value.
    names = []
    for name in operation.value:
        if _MEMBERS in name.lower() or ":" in name:
            names.append(name)
    if not names:
        return change, operation
    if [name.lower() for name in names] != [_MEMBERS]:
        raise _NotByIdError
    change = _apply(operation.op.value, None, operation.value[names[0]], change)
    rest = {}
    for name, value in operation.value.items():
        if name != names[0]:
            rest[name] = value
    if not rest:
        return change, None
    return change, operation.model_copy(update={"value": rest})


def _is_about_members(path: Any) -> bool:
    """Raises: _NotByIdError: about a sub-attribute, or maybe, as the path is that of a schema."""
    if path is None or path.model is not None:
        raise _NotByIdError
    binding = path.resolve()
    if binding is None or binding.field_name != _MEMBERS:
        return False
    if binding.sub_field_name is not None:
        raise _NotByIdError
    return True


def _apply(op: str, value_filter: Any, value: Any, change: MemberChange) -> MemberChange:
    if op == "remove":
        if value is not None:
            removed_ids = []
            for item in _list(value):
                removed_ids.append(_get_id(_drop_nulls(item), ("value",)))
            return change.remove(removed_ids)
        if value_filter is None:
            return change.replace(())
        return change.remove([_get_compared_id(value_filter)])
    if value_filter is not None:
        raise _NotByIdError
    ids = []
    if value is not None:
        for item in _list(value):
            ids.append(_get_id(item, _KEPT))

    if op == "add":
        return change.add(ids)
    return change.replace(ids)


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, str) or not all(isinstance(item, Mapping) for item in value):
        raise _NotByIdError
    items: Sequence[Mapping[str, Any]] = value
    return items


def _drop_nulls(item: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in item.items():
        if value is not None:
            kept[name] = value
    return kept


def _get_id(item: Mapping[str, Any], known: Iterable[str]) -> str:
    """Return the id of a member that has no other sub-attributes than the known ones, all of them
    texts.
    """
    lowered = {name.lower(): value for name, value in item.items()}
    texts = all(value is None or isinstance(value, str) for value in lowered.values())
    if not (lowered.get("value") and texts and lowered.keys() <= {*known}):
        raise _NotByIdError
    return str(lowered["value"])


def _get_compared_id(node: Any) -> str:
    is_of_value = (
        isinstance(node, Comparison)
        and node.attr_path.attr.lower() == "value"
        and not node.attr_path.sub_attr
    )
    if not is_of_value or node.op != CompareOperator.eq or not isinstance(node.value, str):
        raise _NotByIdError
    return node.value
