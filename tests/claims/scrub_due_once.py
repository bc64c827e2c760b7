"""A worker of its own: `scrub_due_once.py NOW BATCH`. Says "ready", waits for a line, scrubs, prints how many."""

import sys
from datetime import datetime

import django

django.setup()

from django_phi_oidc.claims.scrubbing import scrub_due  # noqa: E402

now, batch = sys.argv[1:]
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write(f"{scrub_due(now=datetime.fromisoformat(now), batch=int(batch))}\n")
