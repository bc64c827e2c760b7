"""The values with which a first sign-in creates an account: opaque, empty or null, never data about
the person.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import UserManager
from django.db.models import EmailField, F, UniqueConstraint
from django.db.models.fields import AutoFieldMixin

from .linking import create_opaque_username

UNROUTABLE_DOMAIN = "account.invalid"
"""The domain of opaque e-mail addresses: mail to it cannot be delivered. Spec: RFC 2606 2."""
_NAME_FIELD = "username"
_PASSWORD = "password"
_OMITTED = object()


@dataclass(frozen=True, slots=True)
class MissingField:
    """What a new account needs, and no value of this package can be."""

    reason: str
    is_certain: bool = True
    """Whether a first sign-in fails. Otherwise the project's own `create_user` may set the
    field.
    """


def create_username(user_model: Any) -> str:
    """Return an opaque value for the field that USERNAME_FIELD names."""
    return _create_opaque_text(user_model._meta.get_field(user_model.USERNAME_FIELD))


def build_account_fields(user_model: Any, *, username: str) -> dict[str, Any]:
    """Return the arguments for `create_user` of the default manager. username: the value of
    USERNAME_FIELD.
    """
    values = {}
    for name, value in _plan_fields(user_model).items():
        if not isinstance(value, MissingField):
            values[name] = value
    return {**values, user_model.USERNAME_FIELD: username}


def list_missing_fields(user_model: Any, *, has_own_username: bool) -> list[MissingField]:
    """Return what a first sign-in cannot fill. has_own_username: the project sets the value of
    USERNAME_FIELD.
    """
    if not hasattr(user_model._default_manager, "create_user"):
        return [MissingField("The default manager of the user model has no create_user.")]
    planned = _plan_fields(user_model)
    if not has_own_username:
        name_field = user_model._meta.get_field(user_model.USERNAME_FIELD)
        if not name_field.empty_strings_allowed:
            planned[name_field.name] = MissingField(
                f"The user name {name_field.name!r} is no text."
            )
        else:
            planned[name_field.name] = _fit(name_field, create_username(user_model))
    missing_fields = []
    for value in planned.values():
        if isinstance(value, MissingField):
            missing_fields.append(value)
    return missing_fields


def _plan_fields(user_model: Any) -> dict[str, Any]:
    """Return a value or a MissingField for each argument of `create_user`, without that of
    USERNAME_FIELD.
    """
    create_user = user_model._default_manager.create_user
    required, accepted = _list_parameters(create_user)
    is_django = getattr(create_user, "__func__", None) is UserManager.create_user
    fields = {field.name: field for field in user_model._meta.concrete_fields}
    unique = _find_unique_fields(user_model, accepted)
    planned: dict[str, Any] = {}
    for name in sorted(required - fields.keys()):
        planned[name] = MissingField(
            f"create_user of the manager requires {name!r}, which is no field."
        )
    for name, field in fields.items():
        is_required = name in required
        if name == user_model.USERNAME_FIELD or not (accepted is None or name in accepted):
            continue
        # A conditional constraint may not apply to a new account.
        is_certain = (is_django or is_required) and unique.get(name, True)
        value = _find_value(
            user_model,
            field,
            is_unique=name in unique,
            is_required=is_required,
            is_certain=is_certain,
        )
        if value is not _OMITTED:
            planned[name] = value
    return planned


def _find_value(
    user_model: Any, field: Any, *, is_unique: bool, is_required: bool, is_certain: bool
) -> Any:
    """Return the value of a field, _OMITTED if the model needs none, or a MissingField."""
    if field.name == _PASSWORD:
        # None is an unusable password; an empty text would be a usable one.
        return None if is_required else _OMITTED
    if is_unique and _has_opaque_value(user_model, field):
        # Also if it may be null: Django's UserManager stores an empty text for None, which two
        # accounts cannot share.
        return _fit(field, _create_opaque_text(field))
    is_parent_link = getattr(field.remote_field, "parent_link", False)
    is_time = getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
    if is_parent_link or is_time or field.generated or isinstance(field, AutoFieldMixin):
        return _OMITTED
    is_constant = field.has_default() and not callable(field.default)
    if (field.has_default() or field.has_db_default()) and not (is_unique and is_constant):
        if is_required:
            return field.get_default()
        return _OMITTED
    if field.null or (field.empty_strings_allowed and not is_unique):
        # A constant default that two accounts cannot share is replaced by null.
        empty = None if field.null else ""
        if is_required or is_constant:
            return empty
        return _OMITTED
    return MissingField(
        f"The field {field.name!r} of the user model needs a value for each account.", is_certain
    )


def _has_opaque_value(user_model: Any, field: Any) -> bool:
    return field.name == _NAME_FIELD or _is_address(user_model, field)


def _is_address(user_model: Any, field: Any) -> bool:
    is_named = (
        field.name == getattr(user_model, "EMAIL_FIELD", None) and field.empty_strings_allowed
    )
    return is_named or isinstance(field, EmailField)


def _create_opaque_text(field: Any) -> str:
    name = create_opaque_username()
    if _is_address(field.model, field):
        return f"{name}@{UNROUTABLE_DOMAIN}"
    return name


def _fit(field: Any, text: str) -> Any:
    if field.max_length is None or len(text) <= field.max_length:
        return text
    return MissingField(
        f"The field {field.name!r} has room for {field.max_length} of the {len(text)} characters."
    )


def _find_unique_fields(user_model: Any, accepted: set[str] | None) -> dict[str, bool]:
    """Return the fields that need another value in each account, and whether that is certain.

    Of fields that are unique together, one needs it if no other differs anyway: the address or the
    name if it can.
    accepted: the parameters of `create_user`; the project's own code sets all other fields.
    """
    fields = {field.name: field for field in user_model._meta.concrete_fields}
    found: dict[str, bool] = {}
    for names, is_certain in _list_unique_sets(user_model):
        together = [field for name, field in fields.items() if name in names]
        if len(together) > 1:
            if any(_differs(user_model, field) or field.name in found for field in together):
                continue
            if accepted is not None and not names <= accepted:
                continue
            together = sorted(together, key=lambda field: not _has_opaque_value(user_model, field))[
                :1
            ]
        for field in together:
            found[field.name] = found.get(field.name, False) or is_certain
    return found


def _list_unique_sets(user_model: Any) -> Iterator[tuple[set[str], bool]]:
    """Yield the names of fields that are unique, alone first, or together, and whether for all
    rows.
    """
    sets: list[tuple[set[str], bool]] = []
    for model in (user_model, *user_model._meta.get_parent_list()):
        for field in model._meta.local_concrete_fields:
            if field.unique:
                sets.append(({field.name}, True))
        sets += [(set(names), True) for names in model._meta.unique_together]
        for constraint in model._meta.constraints:
            if isinstance(constraint, UniqueConstraint):
                names = _list_constrained(constraint)
                condition = constraint.condition
                # "Unless it is empty": a new account may have the empty value.
                if condition is None or not condition.referenced_base_fields <= names:
                    sets.append((names, condition is None))
    yield from sorted(sets, key=lambda item: len(item[0]))


def _differs(user_model: Any, field: Any) -> bool:
    """Return whether each new account has another value, or null, or none that this package can
    know.
    """
    if field.name == user_model.USERNAME_FIELD:
        return True
    if field.has_default():
        return callable(field.default) or field.default is None
    return (
        field.null or field.generated or field.has_db_default() or not field.empty_strings_allowed
    )


def _list_constrained(constraint: UniqueConstraint) -> set[str]:
    names = set(constraint.fields)
    for expression in constraint.expressions:
        flatten: Any = getattr(expression, "flatten", None)
        if flatten:
            parts = flatten()
        else:
            parts = [expression]

        names |= {part.name for part in parts if isinstance(part, F)}  # type: ignore[attr-defined]  # not in the stubs
    return names


def _list_parameters(create_user: Any) -> tuple[set[str], set[str] | None]:
    """Return the names of the required and of all parameters; None: any name is accepted."""
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(create_user).parameters
    named = {}
    for name, parameter in parameters.items():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            named[name] = parameter
    required = set()
    for name, parameter in named.items():
        if parameter.default is parameter.empty:
            required.add(name)
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return required, None if is_open else set(named)
