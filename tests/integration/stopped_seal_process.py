"""`audit seal` in a process of its own, which stops itself by SIGSTOP: arguments are the point and the signing key."""

import os
import signal
import sys

import django
from django.conf import settings
from django.core.management import call_command

from tests.support.kill_points import watch
from tests.support.phi_oidc_settings import override_phi_oidc


def stop_at(point: str) -> None:
    if point == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": sys.argv[2]})
    django.setup()
    watch(stop_at)
    call_command("phi_oidc", "audit", "seal")
