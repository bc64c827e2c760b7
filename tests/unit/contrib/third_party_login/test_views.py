"""Third-party initiated login: which sites may start a sign-in, and where it leads."""

from typing import Any

import pytest
from django.test import Client

from django_phi_oidc.audit.events import Action
from tests.support.phi_oidc_settings import override_phi_oidc, override_provider
from tests.support.session_fixtures import events

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
ISSUER = "https://op.example.test"
OTHER = {"issuer": "https://other.example.test", "client_id": "portal", "client_secret": "for tests only"}
START = "/oidc/default/authenticate/"


@pytest.fixture(autouse=True)
def _allowed(settings: Any) -> None:
    providers = {**settings.PHI_OIDC["PROVIDERS"], "other": OTHER}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS=providers)
    settings.PHI_OIDC = override_provider(settings.PHI_OIDC, third_party_login=True)


def send(method: str, **parameters: Any) -> Any:
    client: Any = Client(enforce_csrf_checks=True)
    return getattr(client, method)("/oidc/initiate/", parameters, secure=True)


@pytest.mark.parametrize("method", ["get", "post"])
def test_sign_in_starts_at_the_declared_provider(method: str) -> None:
    response = send(method, iss=ISSUER, target_link_uri="https://testserver/chart/?page=2", login_hint="ann")
    assert response.status_code == 303
    assert response["Location"] == START + "?next=https%3A%2F%2Ftestserver%2Fchart%2F%3Fpage%3D2"
    assert (response["X-Frame-Options"], response["Cache-Control"]) == ("DENY", "no-store")
    assert response.cookies == {}, "Nothing of the other site's request is stored."


def test_only_provider_gets_its_registered_redirect_uri(settings: Any) -> None:
    providers = {"default": settings.PHI_OIDC["PROVIDERS"]["default"]}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS=providers)
    response = send("get", iss=ISSUER)
    assert (response.status_code, response["Location"]) == (303, "/oidc/authenticate/")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no issuer": ({}, "iss_missing"),
    "an unknown issuer": ({"iss": "https://evil.example"}, "iss_mismatch"),
    "an issuer that is declared but not permitted": ({"iss": OTHER["issuer"]}, "iss_mismatch"),
    "the issuer with a slash": ({"iss": f"{ISSUER}/"}, "iss_mismatch"),
    "the issuer in capitals": ({"iss": ISSUER.upper()}, "iss_mismatch"),
    "two issuers": ({"iss": [ISSUER, "https://evil.example"]}, "parameter_repeated"),
}


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(("parameters", "reason"), REFUSED.values(), ids=REFUSED)
def test_issuer_is_refused(parameters: dict[str, Any], reason: str, method: str) -> None:
    response = send(method, **parameters)
    assert response.status_code == 403
    assert response["X-Frame-Options"] == "DENY"
    assert [(event.reason, event.outcome) for event in events(Action.LOGIN_REFUSED)] == [(reason, "failure")]


def test_no_provider_is_permitted_by_default(settings: Any) -> None:
    settings.PHI_OIDC = override_provider(settings.PHI_OIDC, third_party_login=False)
    assert send("get", iss=ISSUER).status_code == 403


TARGETS = {
    "another host": "https://evil.example/",
    "another host without a scheme": "//evil.example/",
    "a backslash": "https:\\\\evil.example",
    "another scheme": "javascript:alert(1)",
    "http": "http://testserver/",
    "a user": "https://testserver@evil.example/",
    "a relative reference": "?page=2",
    "too long": "https://testserver/" + "a" * 600,
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_target_that_is_not_of_this_portal_is_ignored(target: str) -> None:
    assert send("get", iss=ISSUER, target_link_uri=target)["Location"] == START
