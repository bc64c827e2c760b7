"""Sign-in in a federation of the Italian government's software, as its trust anchor and as its provider.

It follows an earlier draft in some parts: see the comments in `contrib/federation/`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import requests

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.federation.entity_statements import fetch_trust_chain
from django_phi_oidc.contrib.federation.errors import FederationCode
from django_phi_oidc.oidc.id_token import validate_signature
from django_phi_oidc.oidc.jose import parse_compact_jws
from django_phi_oidc.oidc.jwe import get_signed_token
from django_phi_oidc.provider.registry import get_provider
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import create_signing_key
from tests.integration.interop.form_login import FormPerson
from tests.integration.interop.spid_cie.conftest import SpidCie
from tests.support.client_keys import create_private_key_pem
from tests.support.error_codes import raises
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.spid_cie, pytest.mark.django_db(**EVERYTHING)]
FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')
ACTION = re.compile(r'action="([^"]+)"')
PASSWORD = "password of amina"


def declare(settings: Any, spid: SpidCie, **changes: Any) -> None:
    providers = {"default": {**spid.options, **changes}}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS=providers, CLAIMS={})


def submit(person: FormPerson, page: requests.Response, **fields: str) -> requests.Response:
    """Submit the form of a page of the provider."""
    fields = {**dict(FIELD.findall(page.text)), **fields}
    action = ACTION.search(page.text)
    url = requests.compat.urljoin(page.url, action[1]) if action else page.url
    return person.web.post(url, data=fields, headers={"Referer": page.url}, timeout=20)


def validate_userinfo(token: str) -> None:
    """Decrypt UserInfo and validate its signature: the rest would be refused, because it has neither iss nor aud."""
    provider = get_provider()
    jws = parse_compact_jws(get_signed_token(token, encryption=provider.declaration.userinfo_encryption))
    validate_signature(jws, keys=provider.get_key_set(timeout_seconds=10))
    assert list(jws.payload) == ["sub"]


def test_member_of_the_federation_signs_in_without_registration(
    start_federation: Callable[..., Any], portal: str, settings: Any
) -> None:
    with start_federation() as spid:
        declare(settings, spid)
        person = FormPerson(portal, spid.issuer, spid.options["ca_bundle"])
        page = person.get("/portal/")
        assert page.url.startswith(f"{spid.issuer}/authorization?"), page.text
        page = submit(person, page, username="amina", password=PASSWORD)
        page = submit(person, page)
        assert "data-user" in page.text, (page.url, page.text)
        session = OIDCSession.objects.get(ended_at=None)
        assert session.issuer == spid.issuer
        fetch_userinfo = partial(
            person.web.get,
            f"{spid.issuer}/userinfo",
            headers={"Authorization": f"Bearer {session.decrypt('access_token')}"},
            timeout=20,
        )
        validate_userinfo(fetch_userinfo().text)
        metadata = get_provider().get_metadata(timeout_seconds=10)
        # The policy of the trust anchor.
        assert metadata.subject_types_supported == ("pairwise",)
        assert metadata.statement is not None
        assert person.post("/oidc/logout/").status_code == 302
        assert events(action="token.revoked", outcome="success") != []
        assert fetch_userinfo().status_code == 403


def test_portal_with_other_federation_keys_than_the_listed_ones_is_no_client(
    start_federation: Callable[..., Any], portal: str, settings: Any
) -> None:
    with start_federation(listed_pem=create_private_key_pem("EC")) as spid:
        declare(settings, spid)
        page = FormPerson(portal, spid.issuer, spid.options["ca_bundle"]).get("/portal/")
        assert page.url.startswith(f"{portal}/oidc/callback/?error=invalid_request")
        assert [event.reason for event in events(action="login.refused")] == ["provider_error"]


def test_trust_anchor_with_other_keys_than_the_declared_ones_is_refused(
    start_federation: Callable[..., Any], portal: str, settings: Any
) -> None:
    with start_federation() as spid:
        declare(settings, spid)
        declaration = get_provider().declaration
        transport = get_provider().transport
        chain = fetch_trust_chain(declaration, transport=transport, timeout_seconds=10, now=clock.now())
        assert chain.entity_identifiers == (spid.issuer, f"{spid.origin}/ta")
        (key,) = spid.options["federation"]["trust_anchor_keys"]["keys"]
        other = {"keys": [{**create_signing_key("RS256").public_jwk(), "kid": key["kid"]}]}
        declare(settings, spid, federation={**spid.options["federation"], "trust_anchor_keys": other})
        with raises(FederationCode.ENTITY_STATEMENT_INVALID):
            get_provider().get_metadata(timeout_seconds=10)
