"""`spool_process.py FILE` spools one permit after the other and prints the id of each, until it is killed."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import django

django.setup()

from django_phi_oidc.audit.events import Action, NewEvent, Origin  # noqa: E402
from django_phi_oidc.contrib.emergency.spool import spool_event  # noqa: E402

path = Path(sys.argv[1])
while True:
    event = NewEvent(
        action=Action.ACCESS_GRANTED, origin=Origin(actor="7"), now=datetime.now(UTC), resource="Patient/7"
    )
    sys.stdout.write(f"{spool_event(event, path=path)}\n")
    sys.stdout.flush()
