"""A separate server process: `access_token_process.py SESSION N`.

It prints "ready" and waits for a line. Then N threads get a token, and it prints the SHA-256 of each token or the code
of the error, as JSON.
"""

import hashlib
import json
import sys
import threading
import uuid

import django

django.setup()

from django.db import connections  # noqa: E402

from django_phi_oidc.errors import PhiOidcError  # noqa: E402
from django_phi_oidc.sessions.access_tokens import get_access_token  # noqa: E402

session, count = uuid.UUID(sys.argv[1]), int(sys.argv[2])
barrier = threading.Barrier(count)
got: list[str] = []


def call() -> None:
    connections["default"].ensure_connection()
    barrier.wait()
    try:
        got.append(hashlib.sha256(get_access_token(session).encode()).hexdigest())
    except PhiOidcError as error:
        got.append(error.code)
    finally:
        connections.close_all()


sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
threads = [threading.Thread(target=call) for _ in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.stdout.write(json.dumps(got) + "\n")
