"""A server process: arguments TIME PROVIDERS ADDRESS COOKIE. Prints "ready", then submits each code that it reads."""

import json
import sys
from datetime import datetime

import django

django.setup()

from django.conf import settings  # noqa: E402

from django_phi_oidc._internal import clock  # noqa: E402
from tests.support.session_fixtures import SecureClient  # noqa: E402
from tests.unit.contrib.invitations.test_activation import COOKIE, enter  # noqa: E402

now, providers, address, cookie = sys.argv[1:]
settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": json.loads(providers)}
client = SecureClient(REMOTE_ADDR=address)
client.cookies[COOKIE] = cookie
sys.stdout.write("ready\n")
sys.stdout.flush()
with clock.override_clock(lambda: datetime.fromisoformat(now)):
    for line in sys.stdin:
        sys.stdout.write(f"{enter(client, line.strip()).status_code}\n")
        sys.stdout.flush()
