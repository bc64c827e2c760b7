"""Delivers to the file named on the command line, and is killed before the cursor is written."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import django

django.setup()

from django_phi_oidc.delivery.declaration import parse_sink  # noqa: E402
from django_phi_oidc.delivery.delivering import deliver  # noqa: E402
from django_phi_oidc.delivery.sinks import open_sink  # noqa: E402
from tests.delivery.log import Clock  # noqa: E402

sink = open_sink(parse_sink("siem", {"type": "file", "path": sys.argv[1]}), site="s")


class Dying:
    """Writes the batch, the beginning of a further line, and is no more."""

    def send(self, items: Sequence[Any], *, deadline: float) -> Any:
        sink.send(items, deadline=deadline)
        with open(sys.argv[1], "a") as file:
            file.write('{"half": ')
        os.kill(os.getpid(), signal.SIGKILL)


deliver("siem", Dying(), clock=Clock(), seconds=5, batch=4)
