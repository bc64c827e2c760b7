"""The values with which a first sign-in creates an account: opaque, empty or null, never data about the person."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import UserManager
from django.db.models import EmailField, F, UniqueConstraint
from django.db.models.fields import AutoFieldMixin

from .linking import create_opaque_username

UNROUTABLE_DOMAIN = "account.invalid"
"""The domain of opaque e-mail addresses: mail to it cannot be delivered. Spec: RFC 2606 2."""
_NAME_FIELD, _PASSWORD = "username", "password"
_OMITTED = object()


@dataclass(frozen=True, slots=True)
class MissingField:
    """What a new account needs, and no value of this package can be."""

    reason: str
    is_certain: bool = True
    """Whether a first sign-in fails. Otherwise the project's own `create_user` may set the field."""


def create_username(user_model: Any) -> str:
    """Return an opaque value for the field that USERNAME_FIELD names."""
    return _create_opaque_text(user_model._meta.get_field(user_model.USERNAME_FIELD))


def build_account_fields(user_model: Any, *, username: str) -> dict[str, Any]:
    """Return the arguments for `create_user` of the default manager. username: the value of USERNAME_FIELD."""
    values = {name: value for name, value in _plan_fields(user_model).items() if not isinstance(value, MissingField)}
    return {**values, user_model.USERNAME_FIELD: username}


def list_missing_fields(user_model: Any, *, has_own_username: bool) -> list[MissingField]:
    """Return what a first sign-in cannot fill. has_own_username: the project sets the value of USERNAME_FIELD."""
    if not hasattr(user_model._default_manager, "create_user"):
        return [MissingField("The default manager of the user model has no create_user.")]
    planned = _plan_fields(user_model)
    if not has_own_username:
        name_field = user_model._meta.get_field(user_model.USERNAME_FIELD)
        if not name_field.empty_strings_allowed:
            planned[name_field.name] = MissingField(f"The user name {name_field.name!r} is no text.")
        else:
            planned[name_field.name] = _fit(name_field, create_username(user_model))
    return [value for value in planned.values() if isinstance(value, MissingField)]


def _plan_fields(user_model: Any) -> dict[str, Any]:
    """Return a value or a MissingField for each argument of `create_user`, without that of USERNAME_FIELD."""
    create_user = user_model._default_manager.create_user
    required, accepted = _list_parameters(create_user)
    is_django = getattr(create_user, "__func__", None) is UserManager.create_user
    fields = {field.name: field for field in user_model._meta.concrete_fields}
    planned: dict[str, Any] = {}
    for name in sorted(required - fields.keys()):
        planned[name] = MissingField(f"create_user of the manager requires {name!r}, which is no field.")
    for name, field in fields.items():
        is_required = name in required
        if name == user_model.USERNAME_FIELD or not (accepted is None or name in accepted):
            continue
        value = _find_value(user_model, field, is_required=is_required, is_certain=is_django or is_required)
        if value is not _OMITTED:
            planned[name] = value
    return planned


def _find_value(user_model: Any, field: Any, *, is_required: bool, is_certain: bool) -> Any:
    """Return the value of a field, _OMITTED if the model needs none, or a MissingField."""
    if field.name == _PASSWORD:
        # None is an unusable password; an empty text would be a usable one.
        return None if is_required else _OMITTED
    is_unique = _is_unique(user_model, field)
    if is_unique and (field.name == _NAME_FIELD or isinstance(field, EmailField)):
        # Also if it may be null: Django's UserManager stores an empty text for None, which two accounts cannot share.
        return _fit(field, _create_opaque_text(field))
    is_parent_link = getattr(field.remote_field, "parent_link", False)
    if is_parent_link or field.generated or isinstance(field, AutoFieldMixin):
        return _OMITTED
    is_constant = field.has_default() and not callable(field.default)
    if (field.has_default() or field.has_db_default()) and not (is_unique and is_constant):
        return field.get_default() if is_required else _OMITTED
    if field.null or (field.empty_strings_allowed and not is_unique):
        # A constant default that two accounts cannot share is replaced by null.
        empty = None if field.null else ""
        return empty if is_required or is_constant else _OMITTED
    return MissingField(f"The field {field.name!r} of the user model needs a value for each account.", is_certain)


def _create_opaque_text(field: Any) -> str:
    name = create_opaque_username()
    return f"{name}@{UNROUTABLE_DOMAIN}" if isinstance(field, EmailField) else name


def _fit(field: Any, text: str) -> Any:
    if field.max_length is None or len(text) <= field.max_length:
        return text
    return MissingField(f"The field {field.name!r} has room for {field.max_length} of the {len(text)} characters.")


def _is_unique(user_model: Any, field: Any) -> bool:
    """Return whether no two accounts may have the same value of this field alone."""
    return field.unique or any(
        isinstance(constraint, UniqueConstraint)
        and constraint.condition is None
        and _list_constrained(constraint) == {field.name}
        for constraint in user_model._meta.constraints
    )


def _list_constrained(constraint: UniqueConstraint) -> set[str]:
    names = set(constraint.fields)
    for expression in constraint.expressions:
        flatten: Any = getattr(expression, "flatten", None)
        parts = flatten() if flatten else [expression]
        names |= {part.name for part in parts if isinstance(part, F)}  # type: ignore[attr-defined]  # not in the stubs
    return names


def _list_parameters(create_user: Any) -> tuple[set[str], set[str] | None]:
    """Return the names of the required and of all parameters; None: any name is accepted."""
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(create_user).parameters
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    required = {name for name, parameter in named.items() if parameter.default is parameter.empty}
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return required, None if is_open else set(named)
