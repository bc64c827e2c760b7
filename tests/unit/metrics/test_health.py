"""The health check for load balancers."""

from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.urls import reverse

from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.leaking_views"),
]
WORKING = {"database": "working", "trail": "working", "keys": "working"}


@pytest.fixture
def away(request: pytest.FixtureRequest) -> Any:
    """Make every statement on that database fail, as after an outage."""
    from django.db import OperationalError  # noqa: PLC0415

    def fail(*call: Any) -> None:
        raise OperationalError("a host, a user and a password")

    connections[request.param].execute_wrappers.append(fail)
    yield request.param
    connections[request.param].execute_wrappers.remove(fail)


def test_health_of_a_working_server_is_200_without_a_session() -> None:
    response = Client().get(reverse("oidc_health"))
    assert (response.status_code, response.json()) == (200, WORKING)
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    assert not response.cookies
    assert Client().head(reverse("oidc_health")).status_code == 200
    assert Client().post(reverse("oidc_health")).status_code == 405


@pytest.mark.parametrize(("away", "part"), [("default", "database"), ("phi_audit", "trail")], indirect=["away"])
def test_health_without_a_database_is_500_without_a_reason(away: str, part: str) -> None:
    response = Client().get(reverse("oidc_health"))
    assert (response.status_code, response.json()) == (500, {**WORKING, part: "unavailable"})


@pytest.mark.parametrize("ring", ["encryption", "audit_mac"])
def test_health_without_keys_is_500(ring: str, settings: Any, tmp_path: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={ring: tmp_path / "a missing file"})
    response = Client().get(reverse("oidc_health"))
    assert (response.status_code, response.json()) == (500, {**WORKING, "keys": "unavailable"})
