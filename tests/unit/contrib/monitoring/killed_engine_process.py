"""For each number read from standard input, evaluate three leaves in a child that is killed at that point.

Prints the exit code of each child. The children are forked, because importing Django takes longer than the evaluation.
"""

import itertools
import os
import signal
import sys

import django

django.setup()

from django_phi_oidc.contrib.monitoring.engine import evaluate_batch  # noqa: E402
from django_phi_oidc.contrib.monitoring.rules import get_builtin_rules  # noqa: E402
from tests.support.audit_log import NOW  # noqa: E402
from tests.support.kill_points import watch  # noqa: E402


def evaluate_until(last_point: int) -> None:
    numbers = itertools.count(1)

    def reach(point: str) -> None:
        if next(numbers) == last_point:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(reach)
    evaluate_batch(get_builtin_rules(), now=NOW, limit=3)


for line in sys.stdin:
    child = os.fork()
    if not child:
        evaluate_until(int(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
