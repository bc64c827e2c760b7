"""The demo provider's control: its own client alone may order a lie, and it lies once."""

from collections.abc import Iterator

import pytest
from portal.demo import hostile_provider
from portal.demo.browser import Browser

from django_phi_oidc.testing.mock_provider import Client, DemoProvider, demo_accounts

CLIENT = Client("portal", "a secret: for + tests", ["http://127.0.0.1:1/callback"])


@pytest.fixture
def provider() -> Iterator[DemoProvider]:
    provider = DemoProvider([CLIENT], demo_accounts())
    provider.mutate = control = hostile_provider.Control(provider, CLIENT)
    provider.intercept = control.intercept
    with provider.running():
        yield provider


def order(provider: DemoProvider, secret: str, lie: str) -> int:
    answer = Browser().post(provider.issuer + hostile_provider.LIE, {"next": lie}, client=(CLIENT.client_id, secret))
    return answer.status


def test_lie_ordered_by_the_client_is_taken(provider: DemoProvider) -> None:
    assert order(provider, CLIENT.client_secret, hostile_provider.FORGED_SIGNATURE) == 200


def test_lie_ordered_by_somebody_else_is_refused(provider: DemoProvider) -> None:
    assert order(provider, "another", hostile_provider.FORGED_SIGNATURE) == 401


def test_lie_of_an_unknown_kind_is_refused(provider: DemoProvider) -> None:
    assert order(provider, CLIENT.client_secret, "none") == 400


def test_control_without_credentials_is_refused(provider: DemoProvider) -> None:
    assert Browser().open(provider.issuer + hostile_provider.LIE).status == 401


def test_unknown_address_stays_unknown(provider: DemoProvider) -> None:
    assert Browser().open(f"{provider.issuer}/_demo/other").status == 404


def test_outage_lasts_until_it_is_mended(provider: DemoProvider) -> None:
    def revoke() -> int:
        client = (CLIENT.client_id, CLIENT.client_secret)
        return Browser().post(f"{provider.issuer}/revoke", {"token": "none"}, client=client).status

    assert revoke() == 200
    assert order(provider, CLIENT.client_secret, hostile_provider.OUTAGE) == 200
    assert revoke() == 503
    assert order(provider, CLIENT.client_secret, hostile_provider.MENDED) == 200
    assert revoke() == 200
