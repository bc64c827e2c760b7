"""The authorization request: its timeouts, and what an error report about it hides."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from django_phi_oidc import conf
from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.config.client_keys import parse_client_keys
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.http.transport import TransportRequest, TransportResponse
from django_phi_oidc.login.authorization_request import prepare_authorization_url
from django_phi_oidc.login.code_exchange import PROVIDER_TIMEOUT_SECONDS
from django_phi_oidc.login.state_cookie import create_authorization_state
from django_phi_oidc.login.views import start_sign_in
from django_phi_oidc.oidc.authorization import AuthorizationRequest
from django_phi_oidc.oidc.jose import decode_b64url
from django_phi_oidc.provider.registry import Provider
from tests.support.client_keys import create_private_key_pem

pytestmark = pytest.mark.sqlite
ISSUER = "https://op.example.test"
REQUEST_URI = "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c"
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/jwks",
    "revocation_endpoint": f"{ISSUER}/revoke",
    "pushed_authorization_request_endpoint": f"{ISSUER}/par",
    "subject_types_supported": ["pairwise"],
    "id_token_signing_alg_values_supported": ["PS256"],
}


@dataclass
class PARProvider:
    """A Transport to a provider with PAR, which records requests and timeouts, and may fail on a push."""

    fails: bool = False
    timeouts: list[tuple[str, float]] = field(default_factory=list)
    pushed: list[bytes] = field(default_factory=list)

    def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
        path = request.url.removeprefix(ISSUER)
        self.timeouts.append((path, timeout_seconds))
        if path == "/par":
            self.pushed.append(request.body or b"")
            if self.fails:
                raise RuntimeError("unexpected")
        status, body = (201, {"request_uri": REQUEST_URI, "expires_in": 60}) if path == "/par" else (200, METADATA)
        return TransportResponse(
            status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode("ascii")
        )


def provider(op: PARProvider) -> Provider:
    declaration = ProviderDeclaration(
        name="default",
        issuer=ISSUER,
        client_id="portal",
        token_endpoint_auth_method="private_key_jwt",
        client_keys=parse_client_keys("client_keys", [create_private_key_pem("EC")]),
    )
    return Provider(declaration=declaration, transport=op)


def prepare_url(op: PARProvider, **secrets: str) -> str:
    values = {name: randomness.token_b64url(32) for name in ("state", "nonce", "code_verifier")} | secrets
    return prepare_authorization_url(
        AuthorizationRequest(redirect_uri="https://portal.example.test/oidc/callback/", **values),
        provider=provider(op),
        declared_claims=conf.claims(),
        timeout_seconds=3.5,
        clock=clock.now,
    )


def test_timeout_is_passed_to_each_provider_call() -> None:
    op = PARProvider()
    assert REQUEST_URI.rpartition(":")[2] in prepare_url(op)
    assert op.timeouts == [("/.well-known/openid-configuration", 3.5), ("/par", 3.5)]


def test_sign_in_uses_its_timeout_for_each_provider_call() -> None:
    op = PARProvider()
    request = RequestFactory().get("/oidc/authenticate/")
    assert start_sign_in(request, provider(op), provider_in_url=False).status_code == 302
    assert op.timeouts == [
        ("/.well-known/openid-configuration", PROVIDER_TIMEOUT_SECONDS),
        ("/par", PROVIDER_TIMEOUT_SECONDS),
    ]
    assert PROVIDER_TIMEOUT_SECONDS == 8.0


def test_state_nonce_and_verifier_have_256_bits_and_are_new() -> None:
    op = PARProvider()
    for _ in range(2):
        start_sign_in(RequestFactory().get("/oidc/authenticate/"), provider(op), provider_in_url=False)
    first, second = (dict(parse_qsl(body.decode())) for body in op.pushed)
    assert len(decode_b64url(first["state"])) == 32
    assert len(decode_b64url(first["nonce"])) == 32 + 16, "random bytes and a MAC"
    pending = create_authorization_state(provider="default", redirect_uri="", next_url="", now=clock.now())
    assert len(decode_b64url(pending.code_verifier)) == 32
    assert all(first[name] != second[name] for name in ("state", "nonce", "code_challenge", "client_assertion"))


def test_error_report_hides_the_pushed_request() -> None:
    op = PARProvider(fails=True)
    secrets = {name: f"canary-of-the-{name}" for name in ("state", "nonce", "code_verifier")}
    with pytest.raises(RuntimeError) as error:
        prepare_url(op, **secrets)
    assert error.tb.tb_next
    assert error.tb.tb_next.tb_next
    # Without this file's frames.
    report: Any = ExceptionReporter(
        RequestFactory().get("/"), error.type, error.value, error.tb.tb_next.tb_next, is_email=True
    )
    text = report.get_traceback_html() + report.get_traceback_text()
    assert "unexpected" in text
    (pushed,) = op.pushed
    assert b"state=canary-of-the-state" in pushed
    assert b"client_assertion=eyJ" in pushed
    for secret in ("canary-of-the-state", "canary-of-the-nonce", "canary-of-the-code_verifier", "eyJ"):
        assert secret not in text
