"""Judges, three leaves at a time, and dies by SIGKILL at the point whose number stands on the command line."""

import itertools
import os
import signal
import sys

import django

django.setup()

from django_phi_oidc.watch.judging import judge_next  # noqa: E402
from django_phi_oidc.watch.rules import ours  # noqa: E402
from tests.audit.log import NOW  # noqa: E402
from tests.audit.watching import watch  # noqa: E402

numbers = itertools.count(1)


def reach(point: str) -> None:
    if next(numbers) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)


watch(reach)
judge_next(ours(), now=NOW, limit=3)
