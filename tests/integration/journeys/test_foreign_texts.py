"""Texts that anyone can send, as a cookie or a parameter, in place of an encrypted one: each is an ordinary refusal."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING
from tests.support.session_fixtures import SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.urls("tests.urls")]

TEXTS = ("20260101-session:A", f"hold-{'0' * 32}:A", "00000000:A", "gAAAA", ":")
STATE = "a-state"
STATE_COOKIE = "__Host-phi_oidc_" + hashlib.sha256(STATE.encode()).hexdigest()[:32]
ACTIVATION_COOKIE = "__Host-phi_oidc_activation"


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("method", "path", "cookie", "status"),
    [
        ("get", f"/oidc/callback/?state={STATE}&code=x", STATE_COOKIE, 403),
        ("get", f"/oidc/default/callback/?state={STATE}&code=x", STATE_COOKIE, 403),
        ("get", "/oidc/activate/", ACTIVATION_COOKIE, 302),
        ("post", "/oidc/activate/", ACTIVATION_COOKIE, 403),
    ],
)
def test_d3_foreign_text_in_a_cookie_is_an_ordinary_refusal(
    method: str, path: str, cookie: str, status: int, text: str
) -> None:
    client: Client = SecureClient()
    without = getattr(client, method)(path)
    client.cookies[cookie] = text
    response = getattr(client, method)(path)
    assert response.status_code == without.status_code == status


@pytest.mark.parametrize("text", TEXTS)
def test_d3_foreign_text_in_a_cookie_does_not_prevent_a_sign_in(text: str, settings: Any) -> None:
    """The provider of the settings does not exist, so the page is that of an unreachable provider."""
    client: Client = SecureClient()
    without = client.get("/oidc/authenticate/").status_code
    client.cookies[STATE_COOKIE] = text
    assert client.get("/oidc/authenticate/").status_code == without != 500


@pytest.mark.parametrize("text", TEXTS)
def test_d3_foreign_text_as_a_step_up_demand_is_an_ordinary_refusal(
    text: str,
    sign_in: Callable[..., SignedIn],
) -> None:
    client = sign_in().client()
    assert client.get("/oidc/step-up/").status_code == 403
    assert client.get("/oidc/step-up/", {"demand": text}).status_code == 403


def test_d3_provider_of_a_foreign_text_needs_no_retention_keys(settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": None})
    client: Client = SecureClient()
    client.cookies[STATE_COOKIE] = TEXTS[0]
    assert client.get(f"/oidc/callback/?state={STATE}&code=x").status_code == 403
