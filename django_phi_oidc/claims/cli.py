"""Erase the claims whose time is over."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import OutputWrapper

from .. import clock
from .scrubbing import scrub_due


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc scrub`: there are none."""


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Erase what is due, and tell how much that was."""
    stdout.write(f"{scrub_due(now=clock.now())} claims were erased.")
