"""A broker that is away when the worker starts, or that hangs: no request waits, and the worker catches up."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from django_phi_oidc.sessions.models import RevocationStatus
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.installation import Installation
from tests.integration.journeys.logout import last_due, revoked_events, sign_in, sign_out, statuses, stopped
from tests.integration.journeys.tcp_relay import relay_to
from tests.support.celery_worker import eventually
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, client, declaration

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.redis]


@contextmanager
def installed(op: DemoProvider, folder: Path, redis_url: str) -> Iterator[tuple[Installation, Browser]]:
    with relay_to(redis_url) as broker:
        installation = Installation(folder, {"PROVIDERS": {"default": declaration(op)}}, broker)
        with installation.portal() as base:
            op.register_client(client(base))
            yield installation, installation.browser(base)
    assert installation.leaks(op) == []


def test_worker_that_starts_without_the_broker_works_when_it_is_back(
    op: DemoProvider, tmp_path: Path, redis_url: str
) -> None:
    with installed(op, tmp_path, redis_url) as (installation, browser):
        installation.broker.go_down()
        with installation.worker(beat=True):
            tokens = sign_in(browser, op, installation)
            with stopped(op):
                sign_out(browser)
            assert eventually(lambda: "Cannot connect to redis" in installation.logs())
            assert all(op.is_token_active(token) for token in tokens)
            installation.broker.come_back()
            installation.set_clock(last_due())
            assert eventually(lambda: statuses() == {RevocationStatus.DONE})
        assert not any(op.is_token_active(token) for token in tokens)
        assert revoked_events() == {"refresh_token": 1, "access_token": 1}


def test_broker_that_hangs_delays_no_logout_and_the_worker_continues_after_it(
    op: DemoProvider, tmp_path: Path, redis_url: str
) -> None:
    with installed(op, tmp_path, redis_url) as (installation, browser), installation.worker(beat=True):
        assert installation.run(), "the broker works"
        with installation.broker.hangs():
            tokens = sign_in(browser, op, installation)
            with stopped(op):
                sign_out(browser)
            assert statuses() == {RevocationStatus.PENDING}
        installation.set_clock(last_due())
        assert eventually(lambda: statuses() == {RevocationStatus.DONE})
        assert not any(op.is_token_active(token) for token in tokens)
        assert revoked_events() == {"refresh_token": 1, "access_token": 1}
