"""Changes of the metadata and keys of a live provider."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc import conf
from django_phi_oidc.contrib.monitoring.models import AnomalyMemory, SecurityAlert
from django_phi_oidc.contrib.monitoring.provider_drift import check_provider_drift
from django_phi_oidc.contrib.monitoring.tasks import watch_providers
from django_phi_oidc.errors import Code
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.testing.mock_provider import DemoProvider, Reply, demo_accounts
from tests.support.audit_log import NOW
from tests.support.error_codes import raises

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
MINUTES = timedelta(minutes=10)


@pytest.fixture
def op(settings: Any) -> Iterator[DemoProvider]:
    op = DemoProvider(accounts=demo_accounts())
    with op.running():
        declared = {"issuer": op.issuer, "client_id": "portal", "client_secret": "s", "allow_loopback_http": True}
        settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declared}}
        yield op


def check(times: int = 1) -> list[str]:
    declaration = conf.providers()["default"]
    transport = HTTPTransport(declaration)
    try:
        return [kind for _ in range(times) for kind in check_provider_drift(declaration, transport=transport, now=NOW)]
    finally:
        transport.close()


def test_unchanged_provider_raises_no_alert(op: DemoProvider) -> None:
    assert check(times=3) == []
    assert AnomalyMemory.objects.count() == 2


@pytest.mark.parametrize("withdraw", [False, True], ids=["one more", "another"])
def test_each_change_of_keys_raises_an_alert(op: DemoProvider, withdraw: bool) -> None:
    check()
    op.rotate_keys(withdraw_old_keys=withdraw)
    assert check(times=2) == ["provider_keys_changed"]
    op.rotate_keys(withdraw_old_keys=withdraw)
    assert check(times=2) == ["provider_keys_changed"]
    alert = SecurityAlert.objects.get()
    assert (alert.key, alert.severity, alert.count) == ("default", "info", 2)


def test_each_change_of_metadata_raises_an_alert(op: DemoProvider) -> None:
    check()

    def change_metadata(endpoint: str, exchange: Any) -> None:
        if endpoint == "discovery":
            exchange.reply.json["userinfo_endpoint"] = f"{op.issuer}/elsewhere"

    op.mutate = change_metadata
    assert check(times=2) == ["provider_metadata_changed"]
    op.mutate = None
    assert check() == ["provider_metadata_changed"]


def test_unreachable_provider_or_invalid_metadata_is_no_change(
    op: DemoProvider, caplog: pytest.LogCaptureFixture
) -> None:
    watch_providers()
    op.intercept = lambda endpoint, exchange: Reply(json={"issuer": "https://other.example"})
    watch_providers()
    op.intercept = None
    op.stop()
    watch_providers()
    with raises(Code.TRANSPORT_UNREACHABLE):
        check()
    assert not SecurityAlert.objects.exists()
    assert [message.rpartition(": ")[2] for message in caplog.messages if "for changes" in message] == [
        "issuer_mismatch.",
        "transport_unreachable.",
    ]
    op.start()
    watch_providers()
    assert not SecurityAlert.objects.exists()
    op.rotate_keys()
    watch_providers()
    assert SecurityAlert.objects.get().kind == "provider_keys_changed"
