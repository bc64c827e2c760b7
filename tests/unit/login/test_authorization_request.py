"""What the start of a sign-in asks of the OP: for how long it waits, and what nobody reads when it fails."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from django_phi_oidc import conf
from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.config.client_keys import parse_client_keys
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.login.authorization_request import prepare_authorization_url
from django_phi_oidc.login.code_exchange import PROVIDER_TIMEOUT_SECONDS
from django_phi_oidc.login.views import start_sign_in
from django_phi_oidc.oidc.authorization import AuthorizationRequest
from django_phi_oidc.oidc.transport import TransportRequest, TransportResponse
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
class PushedAt:
    """A Transport to an OP that takes pushed requests, or falls over at them; it keeps what came, with the deadline."""

    falls_over: bool = False
    timeouts: list[tuple[str, float]] = field(default_factory=list)
    pushed: list[bytes] = field(default_factory=list)

    def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
        path = request.url.removeprefix(ISSUER)
        self.timeouts.append((path, timeout_seconds))
        if path == "/par":
            self.pushed.append(request.body or b"")
            if self.falls_over:
                raise RuntimeError("nobody foresaw it")
        status, body = (201, {"request_uri": REQUEST_URI, "expires_in": 60}) if path == "/par" else (200, METADATA)
        return TransportResponse(
            status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode("ascii")
        )


def provider(op: PushedAt) -> Provider:
    declaration = ProviderDeclaration(
        name="default",
        issuer=ISSUER,
        client_id="portal",
        token_endpoint_auth_method="private_key_jwt",
        client_keys=parse_client_keys("client_keys", [create_private_key_pem("EC")]),
    )
    return Provider(declaration=declaration, transport=op)


def ask(op: PushedAt, **secrets: str) -> str:
    asked = {name: randomness.token_b64url(32) for name in ("state", "nonce", "code_verifier")} | secrets
    return prepare_authorization_url(
        AuthorizationRequest(redirect_uri="https://portal.example.test/oidc/callback/", **asked),
        provider=provider(op),
        declared_claims=conf.claims(),
        timeout_seconds=3.5,
        clock=clock.now,
    )


def test_authorization_url_gives_each_call_to_the_op_the_deadline_it_was_given() -> None:
    op = PushedAt()
    assert REQUEST_URI.rpartition(":")[2] in ask(op)
    assert op.timeouts == [("/.well-known/openid-configuration", 3.5), ("/par", 3.5)]


def test_begin_gives_each_call_to_the_op_the_deadline_of_a_sign_in() -> None:
    op = PushedAt()
    assert (
        start_sign_in(RequestFactory().get("/oidc/authenticate/"), provider(op), provider_in_url=False).status_code
        == 302
    )
    assert op.timeouts == [
        ("/.well-known/openid-configuration", PROVIDER_TIMEOUT_SECONDS),
        ("/par", PROVIDER_TIMEOUT_SECONDS),
    ]
    assert PROVIDER_TIMEOUT_SECONDS == 8.0


def test_error_report_of_a_push_shows_nothing_that_was_pushed() -> None:
    op = PushedAt(falls_over=True)
    secrets = {name: f"canary-of-the-{name}" for name in ("state", "nonce", "code_verifier")}
    with pytest.raises(RuntimeError) as failed:
        ask(op, **secrets)
    assert failed.tb.tb_next
    assert failed.tb.tb_next.tb_next
    # Without the frames of this file.
    report: Any = ExceptionReporter(
        RequestFactory().get("/"), failed.type, failed.value, failed.tb.tb_next.tb_next, is_email=True
    )
    shown = report.get_traceback_html() + report.get_traceback_text()
    assert "nobody foresaw it" in shown
    (pushed,) = op.pushed
    assert b"state=canary-of-the-state" in pushed
    assert b"client_assertion=eyJ" in pushed
    for secret in ("canary-of-the-state", "canary-of-the-nonce", "canary-of-the-code_verifier", "eyJ"):
        assert secret not in shown
