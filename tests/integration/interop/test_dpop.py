"""DPoP and the FAPI 2.0 Security Profile with the npm oidc-provider, which verifies the portal's proofs. RFC 9449."""

import base64
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import requests

from django_phi_oidc._internal import clock
from django_phi_oidc.crypto import keyring
from django_phi_oidc.oidc.dpop import create_proof_key
from django_phi_oidc.provider import dpop_requests
from django_phi_oidc.provider.dpop_requests import remember_dpop_nonce
from django_phi_oidc.sessions.access_tokens import get_access_token, get_api_headers
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from tests.integration.interop.conftest import REFRESHING, Declare, client
from tests.integration.interop.form_login import FormPerson
from tests.support.certified_provider import SECRET, CertifiedProvider
from tests.support.client_keys import create_private_key_pem
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.node, pytest.mark.django_db(**EVERYTHING)]
DPOP = {"dpop_bound_access_tokens": True, **REFRESHING}


@pytest.fixture(autouse=True)
def _no_nonces() -> Iterator[None]:
    dpop_requests._nonces_by_origin.clear()
    yield
    dpop_requests._nonces_by_origin.clear()


@pytest.fixture
def person(portal: str, op: CertifiedProvider) -> FormPerson:
    return FormPerson(portal, op.issuer, op.ca_bundle)


def row() -> OIDCSession:
    return OIDCSession.objects.get()


def expire() -> None:
    OIDCSession.objects.update(access_token_expires_at=clock.now() - timedelta(seconds=1))


def redeem(op: CertifiedProvider, **form: str) -> tuple[int, str]:
    """Use a stolen code or refresh token with the client's own secret, but without its key."""
    pair = f"portal:{quote(SECRET, safe='')}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
    answer = requests.post(f"{op.issuer}/token", data=form, headers=headers, verify=op.ca_bundle, timeout=20)
    return answer.status_code, answer.json().get("error", "")


def get_userinfo(op: CertifiedProvider, headers: dict[str, str]) -> int:
    return requests.get(f"{op.issuer}/me", headers=headers, verify=op.ca_bundle, timeout=20).status_code


@pytest.mark.parametrize("par", ["off", "offered"])
@pytest.mark.parametrize("dpop_nonce", [False, True])
def test_bound_tokens_are_used_refreshed_and_revoked(
    par: str, dpop_nonce: bool, op: CertifiedProvider, portal: str, declare: Declare, person: FormPerson
) -> None:
    op.configure(client(portal, **DPOP), refresh_unasked=True, par=par, dpop_nonce=dpop_nonce)
    declare(default={"dpop": "require"})
    person.sign_in()
    session = row()
    jkt = create_proof_key(session.decrypt("dpop_seed")).thumbprint
    assert op.introspect(session.decrypt("access_token"))["cnf"] == {"jkt": jkt}
    # The provider refuses the first proof of each endpoint's first request only: the nonce is remembered.
    first = "/token" if par == "off" else "/request"
    assert [op.requests(path) for path in ("/request", "/token", "/me")] == [
        (par != "off") + (dpop_nonce and first == "/request"),
        1 + (dpop_nonce and first == "/token"),
        1,
    ]
    expire()
    token = get_access_token(session.pk)
    assert op.introspect(token)["cnf"] == {"jkt": jkt}
    url = f"{op.issuer}/me"
    assert get_userinfo(op, get_api_headers(session, method="GET", url=url)) == 200
    person.post("/oidc/logout/")
    assert op.active_kinds() == []
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {RevocationStatus.DONE}
    assert row().dpop_seed is None


def test_stolen_code_tokens_and_proofs_are_worth_nothing(
    op: CertifiedProvider, portal: str, declare: Declare, person: FormPerson
) -> None:
    op.configure(client(portal, **DPOP), refresh_unasked=True)
    declare(default={"dpop": "require"})
    person.sign_in()
    session, url = row(), f"{op.issuer}/me"
    token, headers = session.decrypt("access_token"), get_api_headers(session, method="GET", url=url)
    assert get_userinfo(op, headers) == 200
    assert get_userinfo(op, headers) == 401, "the proof was used"
    assert get_userinfo(op, {"Authorization": f"Bearer {token}"}) == 401
    assert get_userinfo(op, {"Authorization": f"DPoP {token}"}) in (400, 401)
    assert get_userinfo(op, get_api_headers(session, method="POST", url=url)) == 401
    refresh_token = session.decrypt("refresh_token")
    assert redeem(op, grant_type="refresh_token", refresh_token=refresh_token) == (400, "invalid_grant")
    expire()
    assert get_access_token(session.pk) != token, "the portal itself has the key"


def test_stolen_code_is_worth_nothing(op: CertifiedProvider, portal: str, declare: Declare, person: FormPerson) -> None:
    """The thief intercepts the callback, and has the verifier of the code and the secret of the client."""
    op.configure(client(portal, **DPOP), refresh_unasked=True)
    declare(default={"dpop": "require"})
    person.sign_in()
    person.web.cookies.clear(domain="127.0.0.1")
    answer = person.get("/oidc/authenticate/?next=/portal/", allow_redirects=False)
    while not (location := answer.headers["Location"]).startswith(portal):
        answer = person.web.get(requests.compat.urljoin(answer.url, location), allow_redirects=False, timeout=20)
    (cookie,) = [cookie for cookie in person.web.cookies if re.fullmatch("__Host-phi_oidc_[0-9a-f]{32}", cookie.name)]
    state = json.loads(
        keyring.decrypt_external(str(cookie.value).strip('"'), context=["pending sign-in", cookie.name]) or "{}"
    )
    form = {
        "grant_type": "authorization_code",
        "code": parse_qs(urlsplit(location).query)["code"][0],
        "redirect_uri": location.partition("?")[0],
        "code_verifier": state["code_verifier"],
    }
    assert redeem(op, **form) == (400, "invalid_grant")
    assert person.web.get(location, timeout=20).url == f"{portal}/portal/", "the portal itself has the key"


def test_nonce_at_userinfo_is_remembered(
    op: CertifiedProvider, portal: str, declare: Declare, person: FormPerson
) -> None:
    op.configure(client(portal, **DPOP), refresh_unasked=True, dpop_nonce=True)
    declare(default={"dpop": "require"})
    person.sign_in()
    dpop_requests._nonces_by_origin.clear()
    session, url = row(), f"{op.issuer}/me"
    for status, is_repeated in ((401, True), (200, False)):
        headers = get_api_headers(session, method="GET", url=url)
        answer = requests.get(url, headers=headers, verify=op.ca_bundle, timeout=20)
        assert answer.status_code == status
        assert remember_dpop_nonce(url, status=status, headers=answer.headers) is is_repeated


def test_client_that_needs_dpop_is_refused_without_it(
    op: CertifiedProvider, portal: str, declare: Declare, person: FormPerson
) -> None:
    op.configure(client(portal, **DPOP), par="off")
    person.sign_in()
    assert [event.reason for event in events(action="login.refused")] == ["token_error"]
    declare(default={"dpop": "auto"})
    person.sign_in()
    assert row().dpop_seed is not None


@pytest.mark.parametrize("dpop_nonce", [False, True])
def test_provider_that_enforces_fapi2_accepts_the_profile(
    dpop_nonce: bool, op: CertifiedProvider, portal: str, declare: Declare, person: FormPerson
) -> None:
    registered: dict[str, Any] = client(
        portal,
        token_endpoint_auth_method="private_key_jwt",
        token_endpoint_auth_signing_alg="ES256",
        jwks_uri=f"{portal}/oidc/jwks.json",
        require_pushed_authorization_requests=True,
        **DPOP,
    )
    op.configure(registered, refresh_unasked=True, par="required", fapi2=True, dpop_nonce=dpop_nonce)
    fapi2 = {
        "profile": "fapi2",
        "token_endpoint_auth_method": "private_key_jwt",
        "client_secret": "",
        "client_keys": create_private_key_pem("EC"),
        "par": "require",
        "dpop": "require",
        "id_token_signed_response_alg": ["PS256"],
    }
    declare(default=fapi2)
    person.sign_in()
    session = row()
    expire()
    assert op.introspect(get_access_token(session.pk))["token_type"] == "DPoP"
    assert set(op.assertions("/token")) == {"ES256"}
    person.post("/oidc/logout/")
    assert op.active_kinds() == []
