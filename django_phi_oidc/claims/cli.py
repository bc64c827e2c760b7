"""Erase the claims whose time is over, or all of one person."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.core.management.base import CommandError, OutputWrapper

from .. import clock
from ..audit.events import Origin
from .scrubbing import scrub_due, scrub_user


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc scrub`."""
    parser.add_argument("--user", metavar="PK", help="erase all claims of this user, live sessions too")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Erase what is due, or all of one person, and tell how much that was."""
    erased = scrub_due(now=clock.now()) if (pk := options.get("user")) is None else _scrub_user(pk)
    stdout.write(f"{erased} claims were erased.")


def _scrub_user(pk: str) -> int:
    try:
        user = get_user_model()._default_manager.get(pk=pk)
    except (ObjectDoesNotExist, ValidationError, ValueError) as error:
        raise CommandError(f"There is no user {pk}.") from error
    return scrub_user(user, origin=Origin(), now=clock.now())
