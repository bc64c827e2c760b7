"""Arguments of subcommands about users and providers."""

import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import MultipleObjectsReturned, ObjectDoesNotExist, ValidationError
from django.core.management.base import CommandError

from ... import conf
from ..._internal.command_arguments import build_argument_error
from ..._internal.command_output import format_untrusted
from ..._internal.suggestions import suggest
from ...config.providers import ProviderDeclaration
from ...subjects.models import PairwiseSubject

SUBJECT_UUID_HELP = "The UUID of the subject, as `list` shows it."
USER_FORMS = "user name, pk:VALUE or uuid:SUBJECT_UUID"
_USER_LOOKUPS = {"pk:": "pk", "uuid:": "pairwise_subjects__uuid"}
_MAX_SHOWN_LENGTH = 64


def get_user(reference: str) -> Any:
    """Return the user with that user name, with the primary key in `pk:VALUE`, or with the subject
    in `uuid:UUID`.

    A text without such a prefix is a user name, even if it looks like a primary key. A text that
    names two users is refused: in projects where users choose their names, one could be `pk:1`.
    Raises: CommandError.
    """
    shown = format_untrusted(reference[:_MAX_SHOWN_LENGTH])
    named = _find_user_by_name(reference)
    prefix, colon, value = reference.partition(":")
    lookup = _USER_LOOKUPS.get(prefix + colon)
    if lookup is None:
        if named is None:
            raise CommandError(f"There is no user {shown}.{_suggest_user_forms(reference)}")
        return named
    try:
        user = get_user_model()._default_manager.get(**{lookup: value})
    except (ObjectDoesNotExist, ValidationError, ValueError) as error:
        raise CommandError(f"There is no user {shown}.") from error
    if named is not None and named != user:
        raise CommandError(f"{shown} is also the user name of another user, so it is ambiguous.")
    return user


def get_subject(subject_uuid: uuid.UUID) -> PairwiseSubject:
    """Return the subject with its user. Raises: CommandError."""
    subject = PairwiseSubject.objects.select_related("user").filter(uuid=subject_uuid).first()
    if subject is None:
        raise CommandError(f"There is no subject {subject_uuid}.")
    return subject


def format_user(name: str | None, pk: Any) -> str:
    """Return what names this user as an argument of a subcommand: the user name if possible,
    otherwise `pk:VALUE`.
    """
    is_name = name and name.isprintable() and not name.startswith(tuple(_USER_LOOKUPS))
    if is_name:
        return str(name)
    return f"pk:{pk}"


def describe_user(user: Any) -> str:
    """Return what names this user as an argument of a subcommand."""
    return format_user(user.get_username(), user.pk)


def build_user_row(user: Any) -> dict[str, Any]:
    """Return the members of a JSON object that name the user."""
    return {"user": describe_user(user), "user_pk": str(user.pk)}


def _find_user_by_name(name: str) -> Any:
    """Raises: CommandError if several users have that name."""
    model = get_user_model()
    try:
        return (
            model._default_manager.get(**{model.USERNAME_FIELD: name})
            if name.isprintable()
            else None
        )
    except (ObjectDoesNotExist, ValidationError, ValueError):
        return None
    except MultipleObjectsReturned as error:
        raise CommandError(
            f"Several users have the name {name}: write pk:VALUE for one of them."
        ) from error


def _suggest_user_forms(reference: str) -> str:
    if reference.isascii() and reference.isdigit():
        return f" If this is a primary key, write pk:{reference[:_MAX_SHOWN_LENGTH]}."
    try:
        uuid.UUID(reference)
    except ValueError:
        return ""
    return (
        " If this is a subject in the audit log, write "
        f"uuid:{reference}; if it is a primary key, pk:{reference}."
    )


def get_provider(name: str) -> ProviderDeclaration:
    """Return the declared provider with that name. Raises: CommandError."""
    providers = conf.providers()
    if name not in providers:
        raise build_argument_error(
            f"There is no provider {format_untrusted(name)}.{suggest(name, providers)}"
        )
    return providers[name]


def find_default_provider(name: str | None) -> ProviderDeclaration | None:
    """Return the provider of that name, or the only declared one; None if there are several.
    Raises: CommandError.
    """
    if name is not None:
        return get_provider(name)
    if len(conf.providers()) == 1:
        return next(iter(conf.providers().values()))
    return None
