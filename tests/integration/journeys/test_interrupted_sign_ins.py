"""A portal that is killed during a callback: the sign-in is counted once, and no other one is."""

import json
import os
import signal
from contextlib import closing
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import outbox
from django_phi_oidc.replay.models import UsedIdentifier
from django_phi_oidc.tasks import prune
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser, InProcessBrowser
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process

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


@pytest.mark.postgresql
def test_sign_in_of_a_killed_portal_is_reported_once(op: DemoProvider, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with portal_process({"PROVIDERS": {"default": declaration(op)}}, TEST_PID_FILE=str(pid_file)) as base:
        op.register_client(client(base))
        assert Browser(base).sign_in(op).status == 302
        browser = Browser(base)
        callback = browser.get_callback_url(op)
        op.mutate = lambda endpoint, exchange: os.kill(int(pid_file.read_text()), signal.SIGKILL)
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        with closing(HTTPConnection(urlsplit(base).netloc, timeout=60)) as connection:
            connection.request("GET", callback.removeprefix(base), headers={"Cookie": cookies})
            with pytest.raises((OSError, HTTPException)):
                connection.getresponse()
        op.mutate = None
    assert len(op.active_tokens) == 4, "two of them are known to the provider only"
    assert interrupted() == [(1, "error")]
