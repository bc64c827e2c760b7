"""A provider that goes away, over real sockets: what was fetched before serves everybody for an hour more."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import PhiOidcError, TransportUnreachable
from django_phi_oidc.provider.http_transport import HTTPTransport
from django_phi_oidc.provider.registry import Provider
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, stream_slowly
from tests.support.in_memory_provider import Clock
from tests.support.transport_fixtures import authority, declare  # noqa: F401 -- fixtures

SIGN_INS = 20
DEADLINE = 0.5
HOUR = 3600


@pytest.fixture
def op() -> Iterator[DemoProvider]:
    provider = DemoProvider()
    provider.start()
    yield provider
    provider.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(declare: Callable[..., ProviderDeclaration], op: DemoProvider, clock: Clock) -> Iterator[Provider]:
    declaration = declare(issuer=op.issuer, allow_loopback_http=True)
    transport = HTTPTransport(declaration)
    yield Provider(declaration=declaration, transport=transport, monotonic=clock)
    transport.close()


def sign_ins(provider: Provider, kid: str) -> tuple[Counter[str], list[float]]:
    """Let many want metadata and that key at once; return what they got, and how long each waited."""
    got: list[str] = []
    took: list[float] = []

    def run() -> None:
        began = time.monotonic()
        try:
            provider.get_metadata(deadline=DEADLINE)
            got.append(str(provider.get_key_set(deadline=DEADLINE).get_key(kid=kid, alg="RS256").kid == kid))
        except PhiOidcError as error:
            got.append(error.code)
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=run) for _ in range(SIGN_INS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(got), sorted(took)


def test_documents_that_expire_while_the_op_is_away_serve_for_an_hour(
    provider: Provider, op: DemoProvider, clock: Clock
) -> None:
    kid = op.state.keys["RS256"].kid
    assert sign_ins(provider, kid)[0] == {"True": SIGN_INS}
    documents = [request.path for request in op.requests]
    assert Counter(documents) == {"/.well-known/openid-configuration": 1, "/jwks": 1}
    op.stop()
    clock.now += 301
    assert sign_ins(provider, kid)[0] == {"True": SIGN_INS}
    clock.now += HOUR
    assert sign_ins(provider, kid)[0] == {"transport_unreachable": SIGN_INS}
    with pytest.raises(TransportUnreachable):
        provider.get_metadata(deadline=DEADLINE)
    op.start()
    assert sign_ins(provider, kid)[0] == {"True": SIGN_INS}


def test_documents_that_expire_while_the_op_drips_cost_one_sign_in_its_deadline(
    provider: Provider, op: DemoProvider, clock: Clock
) -> None:
    kid = op.state.keys["RS256"].kid
    assert sign_ins(provider, kid)[0] == {"True": SIGN_INS}
    clock.now += 301

    def drip(endpoint: str, exchange: MutableExchange) -> None:
        exchange.reply.raw = stream_slowly(exchange.reply, pause_seconds=0.05)

    op.mutate = drip
    got, took = sign_ins(provider, kid)
    assert got == {"True": SIGN_INS}
    # One for the metadata, and one, perhaps the same, for the keys.
    assert took[-3] < DEADLINE < took[-1] < 3 * DEADLINE
    assert sign_ins(provider, kid)[1][-1] < DEADLINE, "and for half a minute nobody tries again"
