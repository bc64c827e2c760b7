"""A separate worker process: `scrub_process.py NOW BATCH`. Prints "ready", waits for a line, erases, prints the sum."""

import sys
from datetime import datetime

import django

django.setup()

from django_phi_oidc.claims.retention import scrub_due_claims  # noqa: E402

now, batch = sys.argv[1:]
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write(f"{scrub_due_claims(now=datetime.fromisoformat(now), batch_size=int(batch))}\n")
