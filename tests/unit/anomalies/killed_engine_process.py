"""Evaluate three leaves; the process is killed at the point whose number is on the command line."""

import itertools
import os
import signal
import sys

import django

django.setup()

from django_phi_oidc.anomalies.engine import evaluate_batch  # noqa: E402
from django_phi_oidc.anomalies.rules import get_builtin_rules  # noqa: E402
from tests.support.audit_log import NOW  # noqa: E402
from tests.support.kill_points import watch  # noqa: E402

numbers = itertools.count(1)


def reach(point: str) -> None:
    if next(numbers) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)


watch(reach)
evaluate_batch(get_builtin_rules(), now=NOW, limit=3)
