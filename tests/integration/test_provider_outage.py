"""A provider outage over real sockets: metadata and keys that were fetched before are used for one more hour."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code, PhiOidcError
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.provider.registry import Provider
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, stream_slowly
from tests.support.error_codes import raises
from tests.support.in_memory_provider import Clock
from tests.support.transport_fixtures import authority, declare  # noqa: F401 -- fixtures

SIGN_INS = 20
TIMEOUT_SECONDS = 0.5
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
    """Get metadata and that key in many threads at once; return the outcomes, and how long each thread waited."""
    outcomes: list[str] = []
    durations: list[float] = []

    def run() -> None:
        started_at = time.monotonic()
        try:
            provider.get_metadata(timeout_seconds=TIMEOUT_SECONDS)
            key = provider.get_key_set(timeout_seconds=TIMEOUT_SECONDS).get_key(kid=kid, alg="RS256")
            outcomes.append(str(key.kid == kid))
        except PhiOidcError as error:
            outcomes.append(error.code)
        durations.append(time.monotonic() - started_at)

    threads = [threading.Thread(target=run) for _ in range(SIGN_INS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(outcomes), sorted(durations)


def test_stale_documents_are_used_for_an_hour_while_the_provider_is_unreachable(
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
    with raises(Code.TRANSPORT_UNREACHABLE):
        provider.get_metadata(timeout_seconds=TIMEOUT_SECONDS)
    op.start()
    assert sign_ins(provider, kid)[0] == {"True": SIGN_INS}


def test_stale_documents_delay_one_sign_in_while_the_provider_drips(
    provider: Provider, op: DemoProvider, clock: Clock
) -> None:
    kid = op.state.keys["RS256"].kid
    assert sign_ins(provider, kid)[0] == {"True": SIGN_INS}
    clock.now += 301

    def drip(endpoint: str, exchange: MutableExchange) -> None:
        exchange.reply.raw = stream_slowly(exchange.reply, pause_seconds=0.05)

    op.mutate = drip
    outcomes, durations = sign_ins(provider, kid)
    assert outcomes == {"True": SIGN_INS}
    # One thread fetches the metadata, and one, perhaps the same, the keys.
    assert durations[-3] < TIMEOUT_SECONDS < durations[-1] < 3 * TIMEOUT_SECONDS
    assert sign_ins(provider, kid)[1][-1] < TIMEOUT_SECONDS, "no fetch is tried again for half a minute"
