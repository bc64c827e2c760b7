"""Sign-in, revocation and logout at django-oauth-toolkit 3.4. Only its RFC 8414 document announces revocation."""

import json
import re
from typing import Any

import pytest
import requests

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.doctor.probe import ProbeContext, probe_provider
from django_phi_oidc.provider.registry import get_provider
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from tests.integration.interop.django_providers.server import PASSWORD
from tests.integration.interop.form_login import FormPerson
from tests.support.django_provider import DjangoProvider
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')


@pytest.fixture
def person(toolkit: DjangoProvider, portal: str, options: dict[str, Any], settings: Any) -> FormPerson:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS={"default": options})
    return FormPerson(portal, toolkit.issuer, toolkit.ca_bundle)


def submit(person: FormPerson, page: requests.Response, **fields: str) -> requests.Response:
    """Submit the form of a page of the provider."""
    fields = {**dict(FIELD.findall(page.text)), **fields}
    return person.web.post(page.url, data=fields, headers={"Referer": page.url}, timeout=20)


def sign_in(person: FormPerson) -> OIDCSession:
    page = person.get("/portal/")
    assert page.url.startswith(person.issuer.removesuffix("o") + "accounts/login/"), page.text
    page = submit(person, page, username="amina", password=PASSWORD)
    assert "data-user" in page.text
    return OIDCSession.objects.get(ended_at=None)


def test_c3_logout_revokes_both_tokens_at_the_endpoint_of_the_rfc_8414_document(
    toolkit: DjangoProvider, person: FormPerson
) -> None:
    endpoint = f"{toolkit.issuer}/revoke_token/"
    assert "revocation_endpoint" not in toolkit.fetch("/.well-known/openid-configuration")
    assert toolkit.fetch("/.well-known/oauth-authorization-server")["revocation_endpoint"] == endpoint
    session = sign_in(person)
    assert get_provider("default").get_metadata(timeout_seconds=10).revocation_endpoint == endpoint
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}
    (dropped,) = events(action="claim.overfetched")
    assert json.loads(dropped.detail) == {"claims": ["name"]}
    access_token, refresh_token = (str(session.decrypt(kind)) for kind in ("access_token", "refresh_token"))
    assert toolkit.introspect(access_token)["active"]
    assert toolkit.is_live_refresh_token(refresh_token)
    response = person.post("/oidc/logout/")
    assert response.headers["Location"].startswith(f"{toolkit.issuer}/logout/?")
    # The browser has not followed the redirect: the logout of the provider would revoke the tokens, too.
    assert not toolkit.introspect(access_token)["active"]
    assert not toolkit.is_live_refresh_token(refresh_token)
    assert toolkit.refresh(refresh_token).json()["error"] == "invalid_grant"
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {RevocationStatus.DONE}


def test_c3_logout_without_the_hint_ends_the_session_at_the_provider_after_a_confirmation(person: FormPerson) -> None:
    sign_in(person)
    target = person.post("/oidc/logout/").headers["Location"]
    assert "id_token_hint=" not in target
    page = person.web.get(target, timeout=20)
    assert "Confirm Logout" in page.text
    page = submit(person, page, allow="Logout")
    assert page.url.startswith(f"{person.portal}/oidc/logged-out/?state=")
    assert "your sign-in service has been informed" in page.text
    assert person.get("/portal/").url.startswith(person.issuer.removesuffix("o") + "accounts/login/")


def test_c3_id_token_has_an_auth_time_that_the_metadata_do_not_list(
    toolkit: DjangoProvider, person: FormPerson, options: dict[str, Any], settings: Any
) -> None:
    assert "auth_time" not in toolkit.fetch("/.well-known/openid-configuration")["claims_supported"]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS={"default": {**options, "max_age": 600}})
    sign_in(person)


@pytest.mark.usefixtures("person")
def test_c3_doctor_finds_what_the_metadata_lack_and_nothing_else() -> None:
    provider = get_provider("default")
    context = ProbeContext(claims={}, is_only_provider=True)
    findings = list(probe_provider(provider.declaration, context, transport=provider.transport, clock=clock.now))
    assert [finding.code for finding in findings if finding.level == "failure"] == []
    warnings = {finding.code for finding in findings if finding.level == "warning"}
    assert warnings - {"certificate_expires"} == {"django_phi_oidc.W001", "auth_time_missing", "backchannel_absent"}


@pytest.mark.parametrize(
    ("changed", "path", "expected"),
    [
        ({}, "/oidc/callback/", []),
        ({}, "/oidc/callback", ["redirect_uri_unregistered"]),
        ({"client_id": "another"}, "/oidc/callback/", ["invalid_client"]),
        ({"client_secret": "another"}, "/oidc/callback/", ["invalid_client"]),
    ],
)
def test_doctor_finds_how_the_client_is_registered(
    changed: dict[str, str],
    path: str,
    expected: list[str],
    person: FormPerson,
    options: dict[str, Any],
    settings: Any,
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS={"default": {**options, **changed}})
    provider = get_provider("default")
    context = ProbeContext(claims={}, is_only_provider=True, callback_url=f"{person.portal}{path}")
    findings = list(probe_provider(provider.declaration, context, transport=provider.transport, clock=clock.now))
    found = [finding for finding in findings if finding.level == "failure" and "revocation" not in finding.text]
    assert [finding.code for finding in found] == expected
    if "client_id" in changed:
        assert "client_id must be that of the registration" in found[0].remedy
    if "client_secret" in changed:
        assert "the authorization endpoint knows the client_id" in found[0].text
