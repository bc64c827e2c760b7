"""The control interface of the demo provider accepts orders only from its client."""

from collections.abc import Iterator

import pytest
from portal.demo import hostile_provider
from portal.demo.browser import Browser

from django_phi_oidc.testing.mock_provider import Client, DemoProvider, demo_accounts

CLIENT = Client("portal", "a secret: for + tests", ["http://127.0.0.1:1/callback"])


@pytest.fixture
def provider() -> Iterator[DemoProvider]:
    provider = DemoProvider([CLIENT], demo_accounts())
    provider.mutate = control = hostile_provider.ProviderControl(provider, CLIENT)
    provider.intercept = control.intercept
    with provider.running():
        yield provider


def send_order(provider: DemoProvider, secret: str, order: str) -> int:
    page = Browser().post(
        provider.issuer + hostile_provider.ORDER_PATH, {"next": order}, client=(CLIENT.client_id, secret)
    )
    return page.status


def test_order_of_the_client_is_accepted(provider: DemoProvider) -> None:
    assert send_order(provider, CLIENT.client_secret, hostile_provider.FORGED_SIGNATURE) == 200


def test_order_with_a_wrong_secret_is_refused(provider: DemoProvider) -> None:
    assert send_order(provider, "another", hostile_provider.FORGED_SIGNATURE) == 401


def test_unknown_order_is_refused(provider: DemoProvider) -> None:
    assert send_order(provider, CLIENT.client_secret, "none") == 400


def test_request_without_credentials_is_refused(provider: DemoProvider) -> None:
    assert Browser().open(provider.issuer + hostile_provider.ORDER_PATH).status == 401


def test_unknown_path_is_not_found(provider: DemoProvider) -> None:
    assert Browser().open(f"{provider.issuer}/_demo/other").status == 404


def test_outage_lasts_until_it_is_ended(provider: DemoProvider) -> None:
    def revoke() -> int:
        client = (CLIENT.client_id, CLIENT.client_secret)
        return Browser().post(f"{provider.issuer}/revoke", {"token": "none"}, client=client).status

    assert revoke() == 200
    assert send_order(provider, CLIENT.client_secret, hostile_provider.OUTAGE) == 200
    assert revoke() == 503
    assert send_order(provider, CLIENT.client_secret, hostile_provider.OUTAGE_END) == 200
    assert revoke() == 200
