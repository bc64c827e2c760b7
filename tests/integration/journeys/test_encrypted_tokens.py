"""ID Tokens, UserInfo and logout tokens that are encrypted to the portal. Spec: OIDC Core 10.2; BCL 2.4."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.config.encryption_algorithms import CONTENT_ENCRYPTION_ALGS, KTY_BY_KEY_MANAGEMENT_ALG
from django_phi_oidc.login.client_metadata import list_public_keys
from django_phi_oidc.oidc.jose import parse_compact_jws
from django_phi_oidc.sessions.access_tokens import get_access_token
from django_phi_oidc.sessions.models import EndReason, OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.support.client_keys import create_private_key_pem
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.sqlite]
PEMS = {kty: create_private_key_pem(kty) for kty in ("RSA", "EC")}
Encrypt = Callable[..., None]


@pytest.fixture
def encrypt(op: DemoProvider, portal: str, settings: Any) -> Encrypt:
    """encrypt(alg, enc): declare and register the encryption of all tokens, with client_secret_basic."""

    def encrypt(alg: str, enc: str) -> None:
        algs = {f"{kind}_encrypted_response_alg": alg for kind in ("id_token", "userinfo")}
        encs = {f"{kind}_encrypted_response_enc": enc for kind in ("id_token", "userinfo")}
        declared = {
            "client_keys": [{"key": pem, "use": "enc"} for pem in PEMS.values()],
            "userinfo_signed_response_alg": ["RS256"],
            "id_token_hint": "always",
            **{name: [value] for name, value in (algs | encs).items()},
        }
        providers = {"default": declaration(op, **declared)}
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS=providers)
        jwks = {"keys": list(list_public_keys(conf.providers().values()))}
        registered = {"jwks": jwks, "userinfo_signed_response_alg": "RS256", **algs, **encs}
        registered["backchannel_logout_uri"] = f"{portal}/oidc/backchannel-logout/"
        op.register_client(replace(op.state.clients["portal"], **registered))

    return encrypt


@pytest.mark.parametrize("enc", CONTENT_ENCRYPTION_ALGS)
@pytest.mark.parametrize("alg", KTY_BY_KEY_MANAGEMENT_ALG)
def test_sign_in_refresh_and_logout_with_encrypted_tokens(
    alg: str, enc: str, encrypt: Encrypt, op: DemoProvider, browser: Browser
) -> None:
    encrypt(alg, enc)
    encrypted: list[str] = []

    def list_encrypted(endpoint: str, exchange: MutableExchange) -> None:
        if exchange.signed_token:
            encrypted.append(endpoint)

    op.mutate = list_encrypted
    assert browser.sign_in(op).status == 302
    assert encrypted == ["id_token_jwe", "userinfo_jwe"]
    (session,) = OIDCSession.objects.all()
    # RP-Initiated Logout 2: an encrypted ID Token is decrypted before it is sent as a hint.
    assert parse_compact_jws(session.decrypt("id_token")).payload["iss"] == op.issuer
    OIDCSession.objects.update(access_token_expires_at=clock.now())
    assert get_access_token(OIDCSession.objects.get())
    assert encrypted[2:] == ["id_token_jwe"]
    sid = parse_compact_jws(session.decrypt("id_token")).payload["sid"]
    response = op.send_backchannel_logout("portal", sid=sid)
    assert (response.status, encrypted[3:]) == (200, ["logout_token_jwe"])
    assert OIDCSession.objects.get().end_reason == EndReason.BACKCHANNEL_LOGOUT


def test_sign_in_without_the_declared_encryption_is_refused(
    encrypt: Encrypt, op: DemoProvider, browser: Browser
) -> None:
    encrypt("ECDH-ES", "A256GCM")
    op.register_client(replace(op.state.clients["portal"], id_token_encrypted_response_alg=""))
    assert browser.sign_in(op).status == 403
    assert [event.reason for event in events(action="login.refused")] == ["encryption_missing"]
    assert op.active_tokens == []
