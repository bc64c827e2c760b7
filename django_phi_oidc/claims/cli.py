"""Erase the claims whose time is over, or all of one person."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import OutputWrapper

from .. import clock
from ..audit.events import Origin
from ..subjects.cli import named_user
from .scrubbing import scrub_due, scrub_user


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc scrub`."""
    parser.add_argument("--user", metavar="PK", help="erase all claims of this user, live sessions too")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Erase what is due, or all of one person, and tell how much that was."""
    now = clock.now()
    pk = options.get("user")
    erased = scrub_due(now=now) if pk is None else scrub_user(named_user(pk), origin=Origin(), now=now)
    stdout.write(f"{erased} claims were erased.")
