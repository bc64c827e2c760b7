"""A portal that is killed during a callback: the sign-in is counted once, and no other one is."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import outbox
from django_phi_oidc.audit.events import Action
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.replay.models import UsedIdentifier
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.tasks import prune
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.tcp_relay import relay_to
from tests.support.http_browser import Browser, InProcessBrowser
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process
from tests.support.postgresql import given_url

pytestmark = pytest.mark.django_db(**EVERYTHING)


def interrupted() -> list[Any]:
    """Return the count and the outcome of each event, after the states have expired and two workers have pruned."""
    later = clock.now() + timedelta(minutes=11)
    with clock.override_clock(lambda: later):
        prune()
        prune()
    outbox.flush()
    assert not UsedIdentifier.objects.filter(kind__contains="state").exists()
    found = [event for event in events(action="login.refused") if event.reason == "interrupted"]
    return [(json.loads(event.detail)["count"], event.outcome) for event in found]


def test_completed_and_refused_sign_ins_are_not_interrupted(op: DemoProvider, browser: InProcessBrowser) -> None:
    assert browser.sign_in(op).status == 302
    denied = browser.get_callback_url(op).replace("code=", "error=access_denied&ignored=")
    assert browser.get(denied).status == 403
    assert UsedIdentifier.objects.filter(kind__contains="state").count() == 2
    assert interrupted() == []


@contextmanager
def request_of_killed_portal(callback: str, browser: Browser) -> Iterator[None]:
    """Request the callback of a portal that is killed in this block."""
    base = urlsplit(callback)
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    with closing(HTTPConnection(base.netloc, timeout=60)) as connection:
        connection.request("GET", f"{base.path}?{base.query}", headers={"Cookie": cookies})
        yield
        with pytest.raises((OSError, HTTPException)):
            connection.getresponse()


@pytest.mark.postgresql
def test_sign_in_of_a_killed_portal_is_reported_once(op: DemoProvider, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with portal_process({"PROVIDERS": {"default": declaration(op)}}, TEST_PID_FILE=str(pid_file)) as base:
        op.register_client(client(base))
        assert Browser(base).sign_in(op).status == 302
        browser = Browser(base)
        callback = browser.get_callback_url(op)
        op.mutate = lambda endpoint, exchange: os.kill(int(pid_file.read_text()), signal.SIGKILL)
        with request_of_killed_portal(callback, browser):
            pass
        op.mutate = None
    assert len(op.active_tokens) == 4, "two of them are known to the provider only"
    assert interrupted() == [(1, "error")]


@pytest.mark.postgresql
def test_portal_killed_between_the_commits_of_a_sign_in_leaves_no_session_without_its_event(
    op: DemoProvider, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    declared = {"PROVIDERS": {"default": declaration(op)}}
    with (
        relay_to(given_url(os.environ)) as audit_database,
        portal_process(declared, TEST_PID_FILE=str(pid_file), TEST_AUDIT_PORT=str(audit_database.port)) as base,
    ):
        op.register_client(client(base))
        browser = Browser(base)
        callback = browser.get_callback_url(op)
        with audit_database.hangs(), request_of_killed_portal(callback, browser):
            wait_until(OIDCSession.objects.exists)
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
    session = OIDCSession.objects.live().get()
    (waiting,) = outbox.list_waiting_events(Action.LOGIN_SUCCEEDED)
    assert waiting.session == str(session.pk)
    outbox.flush()
    (event,) = events(action="login.succeeded")
    assert (event.id, event.actor, json.loads(event.detail)["claims"]) == (
        waiting.id,
        str(session.user_id),
        [row.name for row in StoredClaim.objects.order_by("name")],
    )


def wait_until(is_true: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < ends_at
        time.sleep(0.01)
