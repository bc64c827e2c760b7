"""Deliver to the file named on the command line; the process is killed before the cursor is updated."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import django

django.setup()

from django_phi_oidc.contrib.siem.declaration import parse_sink  # noqa: E402
from django_phi_oidc.contrib.siem.delivery import deliver  # noqa: E402
from django_phi_oidc.contrib.siem.sinks import create_sink  # noqa: E402
from tests.support.sealed_events import Clock  # noqa: E402

sink = create_sink(parse_sink("siem", {"type": "file", "path": sys.argv[1]}), hostname="s")


class KilledSink:
    """Writes the batch and half a line, and kills the process."""

    def send(self, items: Sequence[Any], *, timeout_seconds: float) -> Any:
        sink.send(items, timeout_seconds=timeout_seconds)
        with open(sys.argv[1], "a") as file:
            file.write('{"half": ')
        os.kill(os.getpid(), signal.SIGKILL)


deliver("siem", KilledSink(), clock=Clock(), seconds=5, batch_size=4)
