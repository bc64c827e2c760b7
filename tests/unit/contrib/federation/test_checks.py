"""E131, E132, E133 and W131: the trust anchor's keys, the entity configuration, its URL, and its trust marks."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings
from django.urls import include, path

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.federation.views import EntityConfigurationView
from django_phi_oidc.testing.mock_provider import create_signing_key, sign_jwt
from tests.support.client_keys import create_private_key_pem

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
KEY = create_signing_key("ES256")
FEDERATION: dict[str, Any] = {
    "trust_anchor": "https://ta.example",
    "trust_anchor_keys": {"keys": [KEY.public_jwk()]},
    "authority_hints": ["https://ta.example"],
    "keys": create_private_key_pem("EC"),
}
OPTIONS: dict[str, Any] = {
    "client_secret": "",
    "client_id": "https://portal.example/oidc",
    "token_endpoint_auth_method": "private_key_jwt",
    "client_keys": create_private_key_pem("EC"),
    "par": "require",
}
urlpatterns = [
    path("oidc/", include("django_phi_oidc.urls")),
    path(".well-known/openid-federation", EntityConfigurationView.as_view()),
]


@pytest.fixture
def declare(settings: Any) -> Any:
    """declare({"trust_marks": …}, client_id=…, other={…}): the ids for a member, and another provider."""

    def declare(
        federation: dict[str, Any] | None = None, *, other: dict[str, Any] | None = None, **changes: Any
    ) -> set[str]:
        declared = {**settings.PHI_OIDC["PROVIDERS"]["default"], **OPTIONS}
        declared |= {"federation": {**FEDERATION, **(federation or {})}, **changes}
        providers = {"default": declared}
        if other is not None:
            providers["other"] = {**declared, "issuer": "https://op2.example", **other}
        with override_settings(PHI_OIDC={**settings.PHI_OIDC, "PROVIDERS": providers}):
            messages = run_checks(tags=["security", "urls"])
        return {message.id.rpartition(".")[2] for message in messages if message.id}

    return declare


def create_mark(days: int | None) -> dict[str, str]:
    claims = {} if days is None else {"exp": (clock.now() + timedelta(days=days)).timestamp()}
    token = sign_jwt({"alg": "ES256", "kid": KEY.kid, "typ": "trust-mark+jwt"}, claims, KEY)
    return {"trust_mark_type": "https://ta.example/mark", "trust_mark": token}


def test_complete_declaration_has_no_message(declare: Any) -> None:
    assert declare() == set()


def test_trust_anchor_without_usable_key_is_reported(declare: Any) -> None:
    """E131."""
    assert declare({"trust_anchor_keys": {"keys": [KEY.public_jwk(), {"kty": "oct", "kid": "a"}]}}) == set()
    assert declare({"trust_anchor_keys": {"keys": [{"kty": "oct", "kid": "a"}]}}) == {"E131"}


@pytest.mark.parametrize(("days", "ids"), [(31, set()), (29, {"W131"}), (-1, {"W131"}), (None, set())])
def test_trust_mark_that_expires_is_reported(declare: Any, days: int | None, ids: set[str]) -> None:
    """W131."""
    assert declare({"trust_marks": [create_mark(days)]}) == ids


def test_trust_mark_of_another_format_is_not_judged(declare: Any) -> None:
    assert declare({"trust_marks": [{"trust_mark": "x"}]}) == set()


@pytest.mark.parametrize(
    ("other", "ids"),
    [
        ({}, set()),
        ({"client_keys": create_private_key_pem("EC")}, set()),
        ({"federation": {**FEDERATION, "trust_anchor": "https://ta2.example"}}, set()),
        ({"federation": {**FEDERATION, "authority_hints": ["https://ta2.example"]}}, {"E132"}),
        ({"federation": {**FEDERATION, "keys": create_private_key_pem("EC")}}, {"E132"}),
        ({"federation": {**FEDERATION, "organization_name": "Clinic"}}, {"E132"}),
        ({"id_token_signed_response_alg": ["ES256"]}, {"E132"}),
        ({"id_token_signed_response_alg": ["ES256"], "client_id": "https://portal.example/oidc/"}, set()),
    ],
)
def test_providers_of_one_entity_identifier_publish_the_same(
    declare: Any, other: dict[str, Any], ids: set[str]
) -> None:
    """E132."""
    assert declare(other=other) == ids


@pytest.mark.parametrize(
    ("client_id", "ids"),
    [
        ("https://portal.example/oidc", set()),
        ("https://portal.example", {"E133"}),
        ("https://portal.example/portal", {"E133"}),
    ],
)
def test_entity_configuration_has_a_url(declare: Any, client_id: str, ids: set[str]) -> None:
    """E133."""
    assert declare(client_id=client_id) == ids


def test_root_url_of_the_entity_configuration_can_be_added(declare: Any) -> None:
    with override_settings(ROOT_URLCONF=__name__):
        assert "E133" not in declare(client_id="https://portal.example")
    with override_settings(ROOT_URLCONF=None):
        assert "E133" not in declare(client_id="https://portal.example"), "a worker needs no URLs"
