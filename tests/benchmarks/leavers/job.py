"""A portal with signed-in people: `python -m tests.benchmarks.leavers.job`, one command per line, results in JSON."""

import json
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib import import_module
from secrets import token_urlsafe
from typing import Any

from django.db import connections, transaction

from tests.benchmarks.sweep.job import BATCH, _get_declaration, _module, _now, _settle, migrate
from tests.benchmarks.worker_protocol import Command, run_commands

THREADS = 8
"""Requests at the same time."""
PATCH = {
    "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
    "Operations": [{"op": "replace", "path": "active", "value": False}],
}
PAGE = "/oidc/session/"
"""A page that only a signed-in user gets: the time left of the session."""
_people: list[tuple[uuid.UUID, str]] = []
"""The id at SCIM and the Django session of each."""


def provision(count: int) -> dict[str, Any]:
    """Create that many people, each with a SCIM user, a session and both tokens."""
    model = import_module("django.contrib.auth").get_user_model()
    # Another process creates its own people.
    prefix = uuid.uuid4().hex[:8]
    users = model.objects.bulk_create(model(username=f"{prefix}-{number}", password="!") for number in range(count))
    bulk_links = _module("contrib.subject_links.bulk_links")
    keys = _module("crypto.keyring").get_keys("subject")
    fields: dict[str, Any] = {"provider": _get_declaration(), "keys": keys, "now": _now()}
    fields["origin"] = _module("audit.events").Origin()
    for start in range(0, count, BATCH):
        batch = users[start : start + BATCH]
        bulk_links.link_existing_users({f"sub-{user.pk}": user for user in batch}, **fields)
        with transaction.atomic():
            for user in batch:
                _people.append(_sign_in(user))
    _settle()
    return {}


def _sign_in(user: Any) -> tuple[uuid.UUID, str]:
    context, lifecycle = _module("audit.request_context"), _module("sessions.lifecycle")
    session_id = _module("_internal.randomness").uuid7(_now())
    session = import_module("django.contrib.sessions.backends.db").SessionStore()
    session["_auth_user_id"] = str(user.pk)
    session["_auth_user_backend"] = "django_phi_oidc.backends.OIDCAuthenticationBackend"
    session["_auth_user_hash"] = user.get_session_auth_hash()
    session[context.SESSION_KEY] = str(session_id)
    session[_module("sessions.activity").TIMES_KEY] = _module("sessions.activity").create_times_entry(_now())
    session.create()
    tokens = _module("oidc.token").TokenResponse(
        access_token=token_urlsafe(900),
        refresh_token=token_urlsafe(500),
        id_token="",
        expires_in=timedelta(minutes=5),
        lifetime_alert=False,
    )
    lifecycle.start_session(
        session_id=session_id,
        user=user,
        subject=user.pairwise_subjects.get(),
        provider="default",
        issuer=_get_declaration().issuer,
        sid=token_urlsafe(16),
        tokens=tokens,
        id_token=_module("sessions.kept_id_token").KeptIDToken(claims={}, token=""),
        django_session_key=session.session_key,
        auth_time=_now(),
        acr="",
        now=_now(),
    )
    name = user.username
    row = _module("contrib.scim.models").SCIMUser.objects.create(
        id=uuid.uuid4(),
        provider="default",
        user=user,
        user_name=name,
        user_name_key=name,
        created_at=_now(),
        changed_at=_now(),
    )
    return row.pk, session.session_key


def disable(count: int, per_second: int) -> dict[str, Any]:
    """Disable that many people at that rate, and return the time until each of them is out, in seconds.

    A change is due at its time, whether or not earlier ones are done. A person is out when the next request is refused
    and both tokens are revoked at the provider.
    """
    clients = _module("contrib.scim.clients")
    issued = clients.create_client(
        f"bench-{uuid.uuid4().hex[:8]}",
        provider="default",
        lifetime=timedelta(days=1),
        origin=_module("audit.events").Origin(actor="1"),
        now=_now(),
    )
    people = [_people.pop() for _ in range(count)]
    started = time.perf_counter() + 0.5

    def run(number: int) -> float:
        due = started + number / per_second
        time.sleep(max(0.0, due - time.perf_counter()))
        scim_id, session_key = people[number]
        _disable_one(str(scim_id), session_key, token=issued.token)
        return time.perf_counter() - due

    with ThreadPoolExecutor(THREADS, initializer=connections.close_all) as executor:
        seconds = sorted(executor.map(run, range(count)))
    return {"seconds": seconds}


def _disable_one(scim_id: str, session_key: str, *, token: str) -> None:
    client_class = import_module("django.test").Client
    headers = {"Authorization": f"Bearer {token}", "Host": "127.0.0.1"}
    options: dict[str, Any] = {"content_type": "application/scim+json", "headers": headers, "secure": True}
    response = client_class().patch(f"/oidc/scim/v2/Users/{scim_id}", json.dumps(PATCH), **options)
    assert response.status_code == 200, response.content
    browser = client_class()
    browser.cookies["sessionid"] = session_key
    page = browser.get(PAGE, headers={"Host": "127.0.0.1"}, secure=True)
    assert page.status_code != 200, "The person is still signed in."


def left() -> dict[str, Any]:
    """Count the tokens that are not revoked, and those that are."""
    rows = _module("models").PendingRevocation.objects
    return {"waiting": rows.exclude(status="done").count(), "revoked": rows.filter(status="done").count()}


COMMANDS: Mapping[str, Command] = {command.__name__: command for command in (migrate, provision, disable, left)}

if __name__ == "__main__":
    run_commands(COMMANDS)
