"""Somebody leaves, whatever is out of order; and what is asked and told of that."""

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
from django_phi_oidc.testing.mock_provider import DemoProvider, Reply
from tests.integration.journeys.installation import Installation
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import events

LONGEST_SECONDS = 3.0
"""That a person waits for the page of their logout."""


def sign_in(browser: Browser, op: DemoProvider, installation: Installation) -> list[str]:
    """Sign somebody in, and return the tokens that this gave, the refresh token first."""
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""
    assert StoredClaim.objects.filter(session=OIDCSession.objects.get(ended_at=None).pk).exists()
    assert installation.leaks(op) == []
    found = sorted(op.active_tokens, key=lambda token: token.kind, reverse=True)
    assert [token.kind for token in found] == ["refresh_token", "access_token"]
    tokens = [token.value for token in found]
    assert not any(token in str(browser.cookies) for token in tokens)
    return tokens


def leave(browser: Browser) -> PortalResponse:
    """Sign out, within the time that a person waits; all that is ours is over by then."""
    session = OIDCSession.objects.get(ended_at=None)
    began = time.monotonic()
    page = browser.post("/oidc/logout/")
    took = time.monotonic() - began
    # The database may have been away meanwhile.
    connections.close_all()
    assert took < LONGEST_SECONDS
    assert page.status == 302
    assert not OIDCSession.objects.filter(ended_at=None).exists()
    assert not Session.objects.exists()
    assert not StoredClaim.objects.filter(session=session.pk).exists()
    assert browser.user() == ""
    return page


def asked(op: DemoProvider) -> Counter[str]:
    """Return how often the OP was asked to revoke each token."""
    return Counter(request.parameters["token"] for request in op.requests if request.path == "/revoke")


def statuses() -> set[str]:
    return set(PendingRevocation.objects.values_list("status", flat=True))


def last_due() -> Any:
    """Return when the last of the revocations is to be tried."""
    return PendingRevocation.objects.aggregate(Max("due_at"))["due_at__max"]


def alerts() -> list[str]:
    """Return the rules of the alerts so far."""
    outbox.flush()
    return [json.loads(event.detail)["rule"] for event in events(action="alert.raised")]


def revoked() -> Counter[str]:
    """Return how often the trail tells that a token of each kind was revoked."""
    outbox.flush()
    return Counter(json.loads(event.detail)["hint"] for event in events(action="token.revoked"))


Answer = Callable[[threading.Event], Reply | None]


@contextmanager
def revocation_answers(op: DemoProvider, answer: Answer, *, also: Collection[str] = ()) -> Iterator[None]:
    """Let answer stand in for the revocation endpoint, and those named; the event is set when the block ends."""
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
