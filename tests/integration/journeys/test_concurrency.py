"""Two server processes with one database: a state is used once, and a person gets one account."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.settings import key
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.postgresql]

RUNS = 20
CALLBACKS = 20


def run_together(actions: list[Callable[[], PortalResponse]]) -> list[PortalResponse]:
    """Run the actions in threads that start together."""
    barrier = threading.Barrier(len(actions))
    pages: list[PortalResponse] = []

    def run(action: Callable[[], PortalResponse]) -> None:
        barrier.wait()
        pages.append(action())

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return pages


def delay_token_response(endpoint: str, exchange: MutableExchange) -> None:
    if endpoint == "token":
        time.sleep(0.3)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, 302),
        ({"TEST_ATOMIC_REQUESTS": "1"}, 302),
        (
            {"TEST_ATOMIC_REQUESTS": "1", "TEST_BACKEND": "tests.integration.journeys.authentication_backends.Raising"},
            500,
        ),
    ],
    ids=["plain", "ATOMIC_REQUESTS", "a callback that raises after the state was used"],
)
def test_concurrent_callbacks_use_a_state_once(
    environment: dict[str, str], first: int, op: DemoProvider, settings: Any
) -> None:
    op.mutate = delay_token_response
    with ExitStack() as stack:
        phi_oidc = {"PROVIDERS": {"default": declaration(op)}, "TRUSTED_PROXIES": ["127.0.0.0/8"]}
        bases = [stack.enter_context(portal_process(phi_oidc, **environment)) for _ in range(2)]
        for run in range(RUNS):
            op.requests.clear()
            op.register_client(client(bases[0]))
            # Another address each time: 20 refusals a minute of one address have events of their own.
            headers = {"X-Forwarded-For": f"198.51.100.{run}"}
            browser = Browser(bases[0], headers=headers)
            callback = browser.get_callback_url(op)
            target = callback.removeprefix(bases[0])
            browsers = [Browser(bases[n % 2], dict(browser.cookies), headers=headers) for n in range(CALLBACKS)]
            actions = [partial(other.get, target) for other in browsers]
            pages = run_together(actions)
            assert Counter(page.status for page in pages) == {first: 1, 403: CALLBACKS - 1}
            assert [request.path for request in op.requests].count("/token") == 1
            reasons = Counter(event.reason for event in events(action="login.refused", outcome="failure"))
            assert reasons == {"state_replayed": (CALLBACKS - 1) * (run + 1)}
    if first == 500:
        assert op.active_tokens == []
        assert OIDCSession.objects.count() == 0


@pytest.mark.parametrize("rings", [("12", "12"), ("12", "1"), ("12", "23")], ids="-".join)
def test_concurrent_first_sign_ins_create_one_account(rings: tuple[str, str], op: DemoProvider) -> None:
    with ExitStack() as stack:
        bases = []
        for ring in rings:
            phi_oidc = {
                "PROVIDERS": {"default": declaration(op)},
                "KEYS": {
                    "subject": [key(f"test subject key {number}") for number in ring],
                },
            }
            bases.append(stack.enter_context(portal_process(phi_oidc)))
        uris = [uri for base in bases for uri in client(base).redirect_uris]
        op.register_client(replace(client(bases[0]), redirect_uris=uris))
        for _ in range(10):
            get_user_model().objects.all().delete()
            browsers = [Browser(base) for base in bases]
            callbacks = [browser.get_callback_url(op) for browser in browsers]
            pages = run_together(
                [partial(browser.get, callback) for browser, callback in zip(browsers, callbacks, strict=True)]
            )
            assert [page.status for page in pages] == [302, 302]
            assert len({browser.user() for browser in browsers}) == 1
            assert get_user_model().objects.count() == 1
            assert PairwiseSubject.objects.count() == 1
            digests = Counter(SubjectDigest.objects.values_list("key_id", flat=True))
            assert set(digests.values()) == {1}, "one digest for each key"
            assert len(digests) == len(set("".join(rings)))
