"""A server process: arguments ISSUER SUB KEY,KEY,… Prints "ready", waits for a line, links, and prints JSON."""

import json
import sys
import uuid

import django

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402

from django_phi_oidc._internal import clock  # noqa: E402
from django_phi_oidc.audit.events import Origin  # noqa: E402
from django_phi_oidc.crypto import keyring  # noqa: E402
from django_phi_oidc.subjects.linking import get_or_create_account  # noqa: E402

issuer, sub, key_list = sys.argv[1:]
keys = [keyring._parse_key(text) for text in key_list.split(",")]
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
linked = get_or_create_account(
    issuer=issuer,
    sub=sub,
    keys=keys,
    create_user=lambda: get_user_model()._default_manager.create_user(username=uuid.uuid4().hex),
    origin=Origin(),
    provider="default",
    now=clock.now(),
)
sys.stdout.write(json.dumps({"user": linked.user.pk, "created": linked.created}) + "\n")
