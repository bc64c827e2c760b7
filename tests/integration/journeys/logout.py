"""Helpers for tests of logout under failures: sign out, revocation requests, events."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.sessions.models import Session
from django.db import connections
from django.db.models import Max

from django_phi_oidc.audit import outbox
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.sessions.user_logout import LOGOUT_SECONDS
from django_phi_oidc.testing.mock_provider import DemoProvider, Reply
from tests.integration.journeys.installation import Installation
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import events

LOGOUT_LIMIT_SECONDS = LOGOUT_SECONDS + 1
"""Maximum duration of a logout request."""


def sign_in(browser: Browser, op: DemoProvider, installation: Installation) -> list[str]:
    """Sign in and return the issued tokens, the refresh token first."""
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""
    assert StoredClaim.objects.filter(session=OIDCSession.objects.get(ended_at=None).pk).exists()
    assert installation.leaks(op) == []
    issued = sorted(op.active_tokens, key=lambda token: token.kind, reverse=True)
    assert [token.kind for token in issued] == ["refresh_token", "access_token"]
    tokens = [token.value for token in issued]
    assert not any(token in str(browser.cookies) for token in tokens)
    return tokens


def sign_out(browser: Browser) -> PortalResponse:
    """Sign out within LOGOUT_LIMIT_SECONDS and check that session and session claims are deleted."""
    session = OIDCSession.objects.get(ended_at=None)
    started = time.monotonic()
    page = browser.post("/oidc/logout/")
    took = time.monotonic() - started
    # The database may have been restarted meanwhile.
    connections.close_all()
    assert took < LOGOUT_LIMIT_SECONDS
    # A page with a link if the OP has just failed to answer.
    assert page.status in (200, 302)
    assert not OIDCSession.objects.filter(ended_at=None).exists()
    assert not Session.objects.exists()
    assert not StoredClaim.objects.filter(session=session.pk).exists()
    assert browser.user() == ""
    return page


def revocation_requests(op: DemoProvider) -> Counter[str]:
    """Return the number of revocation requests for each token."""
    return Counter(request.parameters["token"] for request in op.requests if request.path == "/revoke")


def statuses() -> set[str]:
    return set(PendingRevocation.objects.values_list("status", flat=True))


def last_due() -> Any:
    """Return when the last pending revocation is due."""
    return PendingRevocation.objects.aggregate(Max("due_at"))["due_at__max"]


def alerts() -> list[str]:
    """Return the rules of the raised alerts."""
    outbox.flush()
    return [json.loads(event.detail)["rule"] for event in events(action="alert.raised")]


def revoked_events() -> Counter[str]:
    """Return the number of token.revoked events for each kind of token."""
    outbox.flush()
    return Counter(json.loads(event.detail)["hint"] for event in events(action="token.revoked"))


Answer = Callable[[threading.Event], Reply | None]


@contextmanager
def revocation_answers(op: DemoProvider, answer: Answer, *, also: Collection[str] = ()) -> Iterator[None]:
    """Replace the revocation endpoint, and those in `also`, by answer. Its event is set when the block ends."""
    over = threading.Event()
    op.intercept = lambda endpoint, exchange: answer(over) if endpoint in {"revocation", *also} else None
    try:
        yield
    finally:
        op.intercept = None
        over.set()


@contextmanager
def stopped(op: DemoProvider) -> Iterator[None]:
    op.stop()
    try:
        yield
    finally:
        op.start()


def hang(over: threading.Event) -> Reply:
    over.wait(30)
    return Reply(raw=())
