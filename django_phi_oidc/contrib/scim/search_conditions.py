"""Translate a filter into a condition of the ORM. Spec: RFC 7644 3.4.2.2.

scim2-models parses the grammar and resolves the attributes; values are parameters of the query, and
never SQL.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Exists, OuterRef, Q
from scim2_models import InvalidFilterException, ScimFilter
from scim2_models.path import (
    AttributeBinding,
    AttrPath,
    CompareOperator,
    Comparison,
    FilterNode,
    FilterVisitor,
    LogicalExpr,
    LogicalOperator,
    Not,
    Present,
    ValuePath,
    coerce_value,
)

from .models import SCIMMembership
from .scim_users import build_comparison_key, parse_id

MAX_FILTER_LENGTH = 2000
MAX_TERMS = 50
_TEXT_LOOKUPS = {"co": "contains", "sw": "startswith", "ew": "endswith"}
_ORDER_LOOKUPS = {"gt": "gt", "ge": "gte", "lt": "lt", "le": "lte"}
Path = tuple[str, str | None]
"""The attribute and the sub-attribute, as scim2-models names them."""


@dataclass(frozen=True, slots=True)
class Column:
    """The column of an attribute."""

    name: str
    convert: Callable[[Any], Any] = str
    """From the value of a filter to that of the column; None: no row has this value."""
    lookups: frozenset[str] = frozenset({*_TEXT_LOOKUPS, *_ORDER_LOOKUPS})
    """The operators that it has in addition to eq, ne and pr."""
    is_nullable: bool = False


def _text(name: str, *, is_case_exact: bool = False) -> Column:
    return Column(name, str if is_case_exact else build_comparison_key)


def _identifier(name: str) -> Column:
    return Column(name, lambda value: parse_id(str(value)), frozenset())


def _to_datetime(value: Any) -> datetime | None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        return None
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidFilterException(detail="a time of the filter is out of range") from None


COMMON_COLUMNS: Mapping[Path, Column] = {
    ("id", None): _identifier("pk"),
    ("external_id", None): _text("external_id", is_case_exact=True),
    ("meta", "created"): Column("created_at", _to_datetime, frozenset(_ORDER_LOOKUPS)),
    ("meta", "last_modified"): Column("changed_at", _to_datetime, frozenset(_ORDER_LOOKUPS)),
}
USER_COLUMNS: Mapping[Path, Column] = {
    **COMMON_COLUMNS,
    ("user_name", None): _text("user_name_key"),
    ("active", None): Column("active", bool, frozenset(), is_nullable=True),
}
GROUP_COLUMNS: Mapping[Path, Column] = {
    **COMMON_COLUMNS,
    ("display_name", None): _text("display_name_key"),
}


@dataclass(frozen=True, slots=True)
class Collection:
    """The rows of a multi-valued attribute."""

    owner: str
    """The column of a membership that refers to the resource."""
    columns: Mapping[str, Column]
    """By the sub-attribute."""


USER_COLLECTIONS = {
    "groups": Collection(
        "member", {"value": _identifier("group"), "display": _text("group__display_name_key")}
    )
}
GROUP_COLLECTIONS = {"members": Collection("group", {"value": _identifier("member")})}


def build_condition(
    scim_filter: ScimFilter[Any],
    *,
    columns: Mapping[Path, Column],
    collections: Mapping[str, Collection],
    is_strict: bool = True,
) -> Q:
    """Return the condition. is_strict: False: an attribute that the resource does not have matches
    nothing.

    Raises: InvalidFilterException: too many terms, or an attribute or operator has no column.
    """
    return _ConditionBuilder(scim_filter, columns, collections, is_strict=is_strict).visit(
        scim_filter.ast
    )


def _refuse() -> InvalidFilterException:
    return InvalidFilterException(
        detail="the filter names an attribute or operator that can't be searched"
    )


class _LogicalBuilder(FilterVisitor[Q]):
    """The logical operators of a filter."""

    def visit_not(self, node: Not) -> Q:
        return ~self.visit(node.expr)

    def visit_logical_expr(self, node: LogicalExpr) -> Q:
        condition = self.visit(node.terms[0])
        for term in node.terms[1:]:
            other = self.visit(term)
            if node.op == LogicalOperator.and_:
                condition = condition & other
            else:
                condition = condition | other
        return condition


class _ConditionBuilder(_LogicalBuilder):
    def __init__(
        self,
        scim_filter: ScimFilter[Any],
        columns: Mapping[Path, Column],
        collections: Mapping[str, Collection],
        *,
        is_strict: bool,
    ) -> None:
        self.scim_filter = scim_filter
        self.columns = columns
        self.collections = collections
        self.is_strict = is_strict
        self._terms = 0

    def visit(self, node: FilterNode) -> Q:
        self.count_term()
        return super().visit(node)

    def count_term(self) -> None:
        """Raises: InvalidFilterException: too many terms."""
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise InvalidFilterException(detail=f"a filter has at most {MAX_TERMS} terms")

    def visit_comparison(self, node: Comparison) -> Q:
        binding = self.scim_filter.resolve_comparison(node.attr_path, strict=self.is_strict)
        if binding is None:
            return Q(pk__in=[])
        value = coerce_value(binding, node.value, node.op)
        if (collection := self.collections.get(binding.field_name)) is None:
            return _compare(self._get_column(binding), node.op, value)
        column = collection.columns.get(binding.sub_field_name or "value")
        if column is None:
            raise _refuse()
        if node.op == CompareOperator.ne:
            # No value equals it.
            return ~_exists(collection, _compare(column, CompareOperator.eq, value))
        return _exists(collection, _compare(column, node.op, value))

    def visit_present(self, node: Present) -> Q:
        binding = self.scim_filter.resolve(node.attr_path, strict=self.is_strict)
        if binding is None:
            return Q(pk__in=[])
        if collection := self.collections.get(binding.field_name):
            return _exists(collection, Q())
        return _is_present(self._get_column(binding))

    def visit_value_path(self, node: ValuePath) -> Q:
        binding = self.scim_filter.resolve(node.attr_path, strict=self.is_strict)
        if binding is None:
            return Q(pk__in=[])
        if (collection := self.collections.get(binding.field_name)) is None:
            raise _refuse()
        return _exists(collection, _ValueConditionBuilder(collection, self).visit(node.val_filter))

    def _get_column(self, binding: AttributeBinding) -> Column:
        if (column := self.columns.get((binding.field_name, binding.sub_field_name))) is None:
            raise _refuse()
        return column


class _ValueConditionBuilder(_LogicalBuilder):
    """The condition inside the brackets of a value path."""

    def __init__(self, collection: Collection, outer: _ConditionBuilder) -> None:
        self.collection = collection
        self.outer = outer

    def visit(self, node: FilterNode) -> Q:
        self.outer.count_term()
        return super().visit(node)

    def visit_comparison(self, node: Comparison) -> Q:
        column = self._get_column(node.attr_path)
        if node.value is not None and not isinstance(node.value, str):
            raise InvalidFilterException(detail="the filter compares a text with another type")
        return _compare(column, node.op, node.value)

    def visit_present(self, node: Present) -> Q:
        return _is_present(self._get_column(node.attr_path))

    def visit_value_path(self, node: ValuePath) -> Q:
        raise _refuse()

    def _get_column(self, path: AttrPath) -> Column:
        if path.sub_attr or (column := self.collection.columns.get(path.attr.lower())) is None:
            raise _refuse()
        return column


def _exists(collection: Collection, condition: Q) -> Q:
    rows = SCIMMembership.objects.filter(condition, **{collection.owner: OuterRef("pk")})
    return Q(Exists(rows))


def _is_present(column: Column) -> Q:
    if column.is_nullable:
        return Q(**{f"{column.name}__isnull": False})
    if column.convert in (str, build_comparison_key):
        return ~Q(**{column.name: ""})
    return Q()


def _compare(column: Column, op: CompareOperator, value: Any) -> Q:
    if value is None:
        return _compare_with_null(column, op)
    # No stored text has these characters, and databases refuse some of them.
    is_storable = not isinstance(value, str) or value.isprintable()
    converted = None
    if is_storable:
        converted = column.convert(value)

    if op in (CompareOperator.eq, CompareOperator.ne):
        if converted is None:
            equals = Q(pk__in=[])
        else:
            equals = Q(**{column.name: converted})
        if op == CompareOperator.eq:
            return equals
        return ~equals
    if op.value not in column.lookups:
        raise _refuse()
    lookup = {**_TEXT_LOOKUPS, **_ORDER_LOOKUPS}[op.value]
    # An attribute without a value matches none of these operators.
    if converted is None:
        matches = Q(pk__in=[])
    else:
        matches = Q(**{f"{column.name}__{lookup}": converted})

    return matches & _is_present(column)


def _compare_with_null(column: Column, op: CompareOperator) -> Q:
    if op == CompareOperator.eq:
        return ~_is_present(column)
    if op == CompareOperator.ne:
        return _is_present(column)
    raise _refuse()
