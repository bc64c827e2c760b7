"""Two server processes while the provider rotates keys, fails to serve its key set, or signs with unknown keys."""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from django_phi_oidc.login.code_exchange import PROVIDER_TIMEOUT_SECONDS
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply, demo_accounts
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.postgresql]

JWKS, DISCOVERY = "/jwks", "/.well-known/openid-configuration"
PEOPLE = tuple(account.username for account in demo_accounts())


@contextmanager
def two_portals(op: DemoProvider) -> Iterator[list[str]]:
    """Run two processes without cached provider documents, and yield their addresses."""
    with ExitStack() as stack:
        phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
        bases = [stack.enter_context(portal_process(phi_oidc)) for _ in range(2)]
        uris = [uri for base in bases for uri in client(base).redirect_uris]
        op.register_client(replace(client(bases[0]), redirect_uris=uris))
        yield bases


class SignIn:
    """One sign-in in one process, prepared up to the callback."""

    def __init__(self, op: DemoProvider, base: str, number: int) -> None:
        self.browser = Browser(base)
        self.callback = self.browser.get_callback_url(op, PEOPLE[number % len(PEOPLE)])
        self.code = self.callback.partition("code=")[2].partition("&")[0]
        self.status, self.took = 0, 0.0

    def complete(self) -> None:
        started = time.monotonic()
        self.status = self.browser.get(self.callback).status
        self.took = time.monotonic() - started


def prepare_sign_ins(op: DemoProvider, bases: list[str], count: int, *, at_once: int = 10) -> list[SignIn]:
    """Return that many prepared sign-ins, alternating between the processes."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda number: SignIn(op, bases[number % 2], number), range(count)))


def start_threads(sign_ins: list[SignIn]) -> list[threading.Thread]:
    """Complete the sign-ins concurrently, one thread each."""
    threads = [threading.Thread(target=sign_in.complete) for sign_in in sign_ins]
    for thread in threads:
        thread.start()
    return threads


def join_threads(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def count_fetches(op: DemoProvider) -> Counter[str]:
    """Return the number of requests for the provider's documents since the last call."""
    with op.state.lock:
        counted = Counter(request.path for request in op.requests if request.path in (JWKS, DISCOVERY))
        op.requests.clear()
    return counted


def count_allowed_refetches(seconds: float) -> int:
    """Return how often one process may fetch the key set again in that time: the pause after a fetch is 1 s at first,
    and doubles with each.
    """
    return 1 + int(math.log2(1 + seconds))


def count_statuses(sign_ins: list[SignIn]) -> Counter[int]:
    assert max(sign_in.took for sign_in in sign_ins) < PROVIDER_TIMEOUT_SECONDS
    return Counter(sign_in.status for sign_in in sign_ins)


class Hooks:
    """A provider that delays its documents, and signs some ID Tokens with an unknown kid or an old key."""

    def __init__(self, op: DemoProvider) -> None:
        self.released = threading.Event()
        self.held_too_long = False
        self.unknown: set[str] = set()
        self.old: set[str] = set()
        self.old_key = op.state.keys[op.signing_alg]
        self.key_set: Reply | None = None
        op.mutate = self

    def __call__(self, endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint in ("jwks", "discovery"):
            self.held_too_long |= not self.released.wait(PROVIDER_TIMEOUT_SECONDS - 2)
        if endpoint == "jwks":
            return self.key_set
        if endpoint == "id_token":
            code = exchange.parameters["code"]
            if code in self.unknown:
                exchange.header["kid"] = f"unknown {code}"
            elif code in self.old:
                exchange.key, exchange.header["kid"] = self.old_key, self.old_key.kid
        return None


def test_sign_ins_with_fifty_unknown_keys_refetch_once_in_each_process(op: DemoProvider) -> None:
    hooks = Hooks(op)
    hooks.released.set()
    with two_portals(op) as bases:
        count_fetches(op)
        # Nothing is cached yet. One sign-in in each process fetches the documents.
        join_threads(start_threads(prepare_sign_ins(op, bases, 2)))
        assert count_fetches(op) == {DISCOVERY: 2, JWKS: 2}

        # The provider rotates its keys: tokens are signed with the old key, the new key, or (most) an unknown key.
        sign_ins = prepare_sign_ins(op, bases, 65)
        unknown, old, new = sign_ins[:50], sign_ins[50:55], sign_ins[55:]
        hooks.unknown, hooks.old = {sign_in.code for sign_in in unknown}, {sign_in.code for sign_in in old}
        op.rotate_keys()
        hooks.released.clear()
        started = time.monotonic()
        fetching = start_threads(new[:2])
        join_threads(start_threads(old))
        # The new key set is still delayed: sign-ins with the old key did not wait for it.
        assert (count_statuses(old), hooks.held_too_long) == ({302: 5}, False)
        assert all(thread.is_alive() for thread in fetching)
        hooks.released.set()
        join_threads(fetching)
        join_threads(start_threads([*unknown, *new[2:]]))
        assert count_statuses(new) == {302: 10}
        assert count_statuses(unknown) == {503: 50}
        refetches = count_allowed_refetches(time.monotonic() - started)
        fetches = count_fetches(op)
        assert set(fetches) == {JWKS}
        assert 2 <= fetches[JWKS] <= 2 * refetches
    assert Counter(event.reason for event in events(action="login.refused")) == {"key_not_found": 50}
    assert not {token.grant.code for token in op.active_tokens} & hooks.unknown


@pytest.mark.parametrize(
    ("answer", "most"),
    [(Reply(raw=()), 2), (Reply(body=b"<html>", headers={"Content-Type": "text/html"}), 1)],
    ids=["connection closed", "HTML page"],
)
def test_failing_key_set_refuses_no_valid_sign_in(answer: Reply, most: int, op: DemoProvider) -> None:
    """most: requests per fetch, because a GET on a broken kept-alive connection is sent again."""
    hooks = Hooks(op)
    hooks.released.set()
    with two_portals(op) as bases:
        warm = prepare_sign_ins(op, bases, 2)
        join_threads(start_threads(warm))
        assert count_statuses(warm) == {302: 2}
        count_fetches(op)
        hooks.key_set = answer
        sign_ins = prepare_sign_ins(op, bases, 40)
        unknown, good = sign_ins[:20], sign_ins[20:]
        hooks.unknown = {sign_in.code for sign_in in unknown}
        started = time.monotonic()
        join_threads(start_threads(sign_ins))
        refetches = count_allowed_refetches(time.monotonic() - started)
        assert (count_statuses(good), count_statuses(unknown)) == ({302: 20}, {503: 20})
        assert 2 <= count_fetches(op)[JWKS] <= 2 * most * refetches
        after = prepare_sign_ins(op, bases, 2)
        join_threads(start_threads(after))
        assert count_statuses(after) == {302: 2}
        assert count_fetches(op) == {}
    assert Counter(event.reason for event in events(action="login.refused")) == {"key_not_found": 20}
