"""Arguments that several subcommands take."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.core.management.base import CommandError


def get_user_by_pk(pk: str) -> Any:
    """Return the user of that primary key. Raises: CommandError."""
    try:
        return get_user_model()._default_manager.get(pk=pk)
    except (ObjectDoesNotExist, ValidationError, ValueError) as error:
        raise CommandError(f"There is no user {pk}.") from error
