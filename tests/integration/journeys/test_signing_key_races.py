"""Two server processes whose provider changes its keys, loses its key set, and signs with keys of nobody's."""

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
AT_ONCE = 25
"""Callbacks under way in each process: each holds a connection or two to the database."""


@contextmanager
def two_portals(op: DemoProvider) -> Iterator[list[str]]:
    """Run two processes that know nothing of the provider yet; give their addresses."""
    with ExitStack() as stack:
        phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
        bases = [stack.enter_context(portal_process(phi_oidc)) for _ in range(2)]
        uris = [uri for base in bases for uri in client(base).redirect_uris]
        op.register_client(replace(client(bases[0]), redirect_uris=uris))
        yield bases


class SignIn:
    """One person on the way through one process, up to the provider's answer, and then further."""

    def __init__(self, op: DemoProvider, base: str, number: int) -> None:
        self.browser = Browser(base)
        self.callback = self.browser.get_callback_url(op, PEOPLE[number % len(PEOPLE)])
        self.code = self.callback.partition("code=")[2].partition("&")[0]
        self.status, self.took = 0, 0.0

    def complete(self) -> None:
        began = time.monotonic()
        self.status = self.browser.get(self.callback).status
        self.took = time.monotonic() - began


def begun(op: DemoProvider, bases: list[str], count: int, *, at_once: int = 10) -> list[SignIn]:
    """Return that many sign-ins, in the processes by turns."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda number: SignIn(op, bases[number % 2], number), range(count)))


def started(sign_ins: list[SignIn]) -> list[threading.Thread]:
    """Complete them all at once, in threads of their own."""
    threads = [threading.Thread(target=sign_in.complete) for sign_in in sign_ins]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def fetched(op: DemoProvider) -> Counter[str]:
    """Return how often the provider was asked for its documents since the last time."""
    with op.state.lock:
        counted = Counter(request.path for request in op.requests if request.path in (JWKS, DISCOVERY))
        op.requests.clear()
    return counted


def outcomes(sign_ins: list[SignIn]) -> Counter[int]:
    assert max(sign_in.took for sign_in in sign_ins) < PROVIDER_TIMEOUT_SECONDS
    return Counter(sign_in.status for sign_in in sign_ins)


class Hooks:
    """A provider that holds its documents back, and signs some ID Tokens under an unknown kid, or with an old key."""

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
                exchange.header["kid"] = f"nobody's {code}"
            elif code in self.old:
                exchange.key, exchange.header["kid"] = self.old_key, self.old_key.kid
        return None


def test_a_hundred_sign_ins_with_fifty_unknown_keys_refetch_once_in_each_process(op: DemoProvider) -> None:
    hooks = Hooks(op)
    with two_portals(op) as bases:
        fetched(op)
        # Nobody knows the provider yet. Its documents come late, so that all the first sign-ins meet.
        threading.Timer(0.5, hooks.released.set).start()
        first = begun(op, bases, 2 * AT_ONCE, at_once=2 * AT_ONCE)
        assert fetched(op) == {DISCOVERY: 2}
        hooks.released.clear()
        threading.Timer(0.5, hooks.released.set).start()
        join(started(first))
        assert outcomes(first) == {302: 2 * AT_ONCE}
        assert fetched(op) == {JWKS: 2}

        # Then the provider changes its keys: some tokens are still of the old one, some of the new, half of neither.
        sign_ins = begun(op, bases, 100)
        unknown, old, new = sign_ins[:50], sign_ins[50:75], sign_ins[75:]
        hooks.unknown, hooks.old = {it.code for it in unknown}, {it.code for it in old}
        op.rotate_keys()
        hooks.released.clear()
        waiting = started([*unknown[:40], *new])
        for position in range(0, len(old), 5):
            join(started(old[position : position + 5]))
        # The new key set is still on its way: who needs none did not wait for it.
        assert (outcomes(old), hooks.held_too_long) == ({302: 25}, False)
        assert any(thread.is_alive() for thread in waiting)
        hooks.released.set()
        join(waiting)
        join(started(unknown[40:]))
        assert outcomes(new) == {302: 25}
        assert outcomes(unknown) == {503: 50}
        assert fetched(op) == {JWKS: 2}
    assert Counter(event.reason for event in events(action="login.refused")) == {"key_not_found": 50}
    assert not {token.grant.code for token in op.active_tokens} & hooks.unknown


@pytest.mark.parametrize(
    ("answer", "most"),
    [(Reply(raw=()), 2), (Reply(body=b"<html>", headers={"Content-Type": "text/html"}), 1)],
    ids=["hung up on", "a page of HTML"],
)
def test_a_key_set_that_is_away_or_nonsense_costs_no_good_sign_in(answer: Reply, most: int, op: DemoProvider) -> None:
    """most: requests for one fetch, since a GET on a kept connection that broke is sent once more."""
    hooks = Hooks(op)
    hooks.released.set()
    with two_portals(op) as bases:
        warm = begun(op, bases, 2)
        join(started(warm))
        assert outcomes(warm) == {302: 2}
        fetched(op)
        hooks.key_set = answer
        sign_ins = begun(op, bases, 40)
        unknown, good = sign_ins[:20], sign_ins[20:]
        hooks.unknown = {it.code for it in unknown}
        join(started(sign_ins))
        assert (outcomes(good), outcomes(unknown)) == ({302: 20}, {503: 20})
        assert 2 <= fetched(op)[JWKS] <= 2 * most
        after = begun(op, bases, 2)
        join(started(after))
        assert outcomes(after) == {302: 2}
        assert fetched(op) == {}
    assert Counter(event.reason for event in events(action="login.refused")) == {"key_not_found": 20}
