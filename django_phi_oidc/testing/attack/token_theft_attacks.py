"""Attacks with a code, tokens or a proof that leaked from the portal, while tokens are bound to a
key (RFC 9449).

The attacker has the client's secret or key, too, but not the key of the session: nothing may be
accepted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.apps import apps

from ... import conf
from ..._internal import clock, randomness
from ...audit.request_context import SESSION_KEY
from ...http.transport import TransportRequest
from ...oidc.client_auth import AssertionFreshness, ClientContext
from ...oidc.dpop import ProofKey, create_proof_key
from ...oidc.refresh import build_refresh_request
from ...oidc.token import build_token_request
from ...provider.dpop_requests import create_request_proof
from ...provider.registry import Provider, get_provider
from ..mock_provider import Token
from .environment import AttackEnvironment
from .provider_attacks import AttackFunction, get_session

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StolenTokens:
    """The newest tokens of a session, and the key, which only the portal has."""

    provider: Provider
    key: ProofKey = field(repr=False)
    access_token: Token
    refresh_token: Token | None

    @property
    def userinfo_url(self) -> str:
        return f"{self.provider.declaration.issuer}/userinfo"

    def create_portal_headers(self, *, method: str = "GET", path: str = "") -> dict[str, str]:
        """Return the headers that the portal sends."""
        token = self.access_token.value
        url = f"{self.userinfo_url}{path}"
        proof = create_request_proof(
            self.key, method=method, url=url, access_token=token, now=clock.now()
        )
        return {"Authorization": f"DPoP {token}", "DPoP": proof}

    def is_accepted(self, headers: Mapping[str, str]) -> bool:
        """Return whether UserInfo accepts a request with these headers."""
        request = TransportRequest(method="GET", url=self.userinfo_url, headers=headers)
        return _send(self.provider, request) == 200


def use_stolen_access_token(environment: AttackEnvironment) -> None:
    """An access token from the portal's memory or log is sent as a Bearer token, and without a
    proof.
    """
    with _bind_tokens(environment) as stolen:
        environment.assert_control(
            stolen.is_accepted(stolen.create_portal_headers()), "the portal's token is refused"
        )
        for scheme in ("Bearer", "DPoP"):
            headers = {"Authorization": f"{scheme} {stolen.access_token.value}"}
            if stolen.is_accepted(headers):
                environment.report_fault("the token alone is accepted")


def use_stolen_proof(environment: AttackEnvironment) -> None:
    """A proof is sent a second time, or with another request than its own."""
    with _bind_tokens(environment) as stolen:
        headers = stolen.create_portal_headers()
        environment.assert_control(stolen.is_accepted(headers), "the portal's proof is refused")
        if stolen.is_accepted(headers):
            environment.report_fault("the proof is accepted again")
        for other in (
            stolen.create_portal_headers(method="POST"),
            stolen.create_portal_headers(path="/x"),
        ):
            if stolen.is_accepted(other):
                environment.report_fault("the proof of another request is accepted")


def use_stolen_refresh_token(environment: AttackEnvironment) -> None:
    """A refresh token is used without the key of the session."""
    with _bind_tokens(environment) as stolen:
        if stolen.refresh_token is None:
            environment.skip_attack("the provider issues no refresh token")
        request = build_refresh_request(
            refresh_token=stolen.refresh_token.value, **_create_client_context(stolen.provider)
        )
        is_accepted = _send(stolen.provider, request) == 200
        if is_accepted:
            environment.report_fault("the refresh token alone is accepted")
        is_active = environment.op.is_token_active(stolen.refresh_token.value)
        environment.assert_control(is_active, "the attempt revokes the portal's tokens")


def use_stolen_code(environment: AttackEnvironment) -> None:
    """A code is redeemed without the key that the authorization request named."""
    with environment.override_declaration(dpop="require", tokens="keep"):
        environment.op.state.dpop = "offered"
        browser = environment.create_browser()
        callback = browser.get_callback_url(environment.op)
        grant = environment.op.last_grant
        provider = get_provider(environment.portal.name)
        request = build_token_request(
            code=grant.code,
            redirect_uri=grant.redirect_uri,
            code_verifier=randomness.token_b64url(32),
            **_create_client_context(provider),
        )
        if not grant.dpop_jkt:
            environment.report_fault("the code is bound to no key")
        if _send(provider, request) == 200:
            environment.report_fault("the code alone is accepted")
        environment.assert_accepted(browser, browser.get(callback))


@contextmanager
def _bind_tokens(environment: AttackEnvironment) -> Iterator[StolenTokens]:
    with environment.override_declaration(dpop="require", tokens="keep"):
        environment.op.state.dpop = "offered"
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        by_kind = {}
        for token in environment.op.active_tokens:
            by_kind[token.kind] = token
        for token in by_kind.values():
            if not token.dpop_jkt:
                environment.report_fault("a token is not bound")
        row = apps.get_model("django_phi_oidc", "OIDCSession")._default_manager.get(
            pk=get_session(browser)[SESSION_KEY]
        )
        yield StolenTokens(
            provider=get_provider(environment.portal.name),
            key=create_proof_key(row.decrypt("dpop_seed")),
            access_token=by_kind["access_token"],
            refresh_token=by_kind.get("refresh_token"),
        )


def _create_client_context(provider: Provider) -> ClientContext:
    return ClientContext(
        metadata=provider.get_metadata(timeout_seconds=TIMEOUT_SECONDS),
        declaration=conf.providers()[provider.declaration.name],
        freshness=AssertionFreshness(now=clock.now(), jti=randomness.token_b64url(32)),
    )


def _send(provider: Provider, request: TransportRequest) -> int:
    """Return the status."""
    return provider.transport.send(request, timeout_seconds=TIMEOUT_SECONDS).status


TOKEN_THEFT_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("stolen_bound_token", ""): use_stolen_access_token,
    ("stolen_bound_token", "proof"): use_stolen_proof,
    ("stolen_bound_token", "refresh token"): use_stolen_refresh_token,
    ("stolen_bound_token", "code"): use_stolen_code,
}
