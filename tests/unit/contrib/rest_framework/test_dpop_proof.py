"""Access tokens that are bound to a key, at the portal's API over HTTP: which proofs are accepted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.contrib.apis.dpop_proof import NONCE_LIFETIME, create_nonce, is_current_nonce
from django_phi_oidc.oidc.dpop import SEED_BYTES, ProofKey, create_proof, create_proof_key
from django_phi_oidc.replay.models import UsedIdentifier
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Resource
from tests.support.api_fixtures import API, CHALLENGES, EVERYTHING, App, Declare, refusals

pytestmark = pytest.mark.django_db(**EVERYTHING)
URL = "https://testserver/whoami/"
METHODS = ("jwt", "introspection")
ALGS = 'algs="ES256 PS256 EdDSA Ed25519"'
PROOF_REFUSED = (
    'DPoP error="invalid_dpop_proof", '
    f'error_description="The DPoP proof does not fit the request, or was used before", {ALGS}'
)
TOKEN_REFUSED = (
    'error="invalid_token", error_description="The access token is expired, revoked, malformed or not for this API"'
)


@dataclass
class BoundApp:
    """An app with a key."""

    app: App
    key: ProofKey

    def token(self) -> str:
        """Return a new access token that is bound to the key."""
        code = self.app.relying.callback(scope="openid chart.read")["code"]
        relying = self.app.relying
        proof = self.prove("POST", f"{relying.op.issuer}/token")
        form = relying.code_form(code, resource=API)
        response = relying.send("POST", "/token", form, {**relying.basic, "DPoP": proof})
        assert (response.status, response.json["token_type"]) == (200, "DPoP"), response.body
        return str(response.json["access_token"])

    def prove(self, method: str = "GET", url: str = URL, *, jti: str = "", **options: Any) -> str:
        values = {"jti": jti or randomness.token_b64url(16), "now": clock.now(), **options}
        return create_proof(self.key, method=method, url=url, **values)

    def get(self, token: str, *proof: str, scheme: str = "DPoP", path: str = "/whoami/", **extra: Any) -> Any:
        headers = {"Authorization": f"{scheme} {token}", **({"DPoP": ",".join(proof)} if proof else {})}
        return self.app.client.get(path, headers=headers, **extra)


@pytest.fixture
def bound(app: App, op: DemoProvider) -> BoundApp:
    op.state.dpop = "offered"
    return BoundApp(app=app, key=create_proof_key(randomness.token_b64url(SEED_BYTES)))


@contextmanager
def ahead(seconds: float) -> Iterator[None]:
    with clock.override_clock(lambda: clock._get_system_time() + timedelta(seconds=seconds)):
        yield


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("issues_jwt", [True, False])
def test_bound_token_is_accepted_with_a_new_proof_only(
    method: str, issues_jwt: bool, bound: BoundApp, declare: Declare, op: DemoProvider
) -> None:
    if method == "jwt" and not issues_jwt:
        return
    op.register_resource(Resource(API, ["chart.read"], issues_jwt=issues_jwt))
    declare(method=method)
    token = bound.token()
    proof = bound.prove(access_token=token)
    response = bound.get(token, proof)
    assert (response.status_code, response.json()["user"]) == (200, bound.app.user.pk)
    assert bound.get(token, bound.prove(access_token=token), scheme="dpop").status_code == 200
    replayed = bound.get(token, proof)
    assert (replayed.status_code, replayed["WWW-Authenticate"]) == (401, PROOF_REFUSED)
    assert refusals() == [("dpop_replayed", "default", "failure")]


@pytest.mark.parametrize("method", METHODS)
def test_bound_token_as_bearer_is_refused(method: str, bound: BoundApp, declare: Declare) -> None:
    declare(method=method)
    token = bound.token()
    assert bound.get(token, bound.prove(access_token=token)).status_code == 200
    for proof in ((), (bound.prove(access_token=token),)):
        response = bound.get(token, *proof, scheme="Bearer")
        assert (response.status_code, response["WWW-Authenticate"]) == (401, f"Bearer {TOKEN_REFUSED}")
    assert refusals() == [("cnf_mismatch", "default", "failure")] * 2


@pytest.mark.parametrize("method", METHODS)
def test_bearer_token_with_a_proof_is_refused(method: str, bound: BoundApp, declare: Declare) -> None:
    declare(method=method)
    token = bound.app.token()
    assert bound.get(token, scheme="Bearer").status_code == 200
    response = bound.get(token, bound.prove(access_token=token))
    assert (response.status_code, response["WWW-Authenticate"]) == (401, f"DPoP {TOKEN_REFUSED}, {ALGS}")
    assert refusals() == [("cnf_missing", "default", "failure")]


def test_proof_that_does_not_fit_the_request_is_refused(bound: BoundApp) -> None:
    token = bound.token()
    other = BoundApp(app=bound.app, key=create_proof_key(randomness.token_b64url(SEED_BYTES)))
    good = bound.prove(access_token=token)
    rows: list[tuple[str, tuple[str, ...]]] = [
        ("dpop_malformed", ()),
        ("dpop_malformed", (good, good)),
        ("dpop_htm", (bound.prove("POST", access_token=token),)),
        ("dpop_htu", (bound.prove(url="https://testserver/scoped/", access_token=token),)),
        ("dpop_htu", (bound.prove(url="http://testserver/whoami/", access_token=token),)),
        ("dpop_ath", (bound.prove(),)),
        ("dpop_ath", (bound.prove(access_token="another"),)),
        ("dpop_iat", (bound.prove(access_token=token, now=clock.now() - timedelta(seconds=62)),)),
        ("dpop_iat", (bound.prove(access_token=token, now=clock.now() + timedelta(seconds=60)),)),
    ]
    for rule, proofs in rows:
        response = bound.get(token, *proofs)
        assert (response.status_code, response["WWW-Authenticate"]) == (401, PROOF_REFUSED), rule
        assert refusals()[-1] == (rule, "default", "failure")
    assert bound.get(token, other.prove(access_token=token)).status_code == 401
    assert refusals()[-1] == ("cnf_mismatch", "default", "failure")
    assert bound.get(token, good).status_code == 200, "a refused request does not use a proof up"
    assert bound.get(token, bound.prove(url=f"{URL}?a=b", access_token=token), path="/whoami/?c=d").status_code == 200


def test_proof_names_the_url_that_the_proxy_serves(bound: BoundApp, settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.USE_X_FORWARDED_HOST, settings.ALLOWED_HOSTS = True, ["portal.example", "internal"]
    token = bound.token()
    forwarded = {"HTTP_HOST": "internal", "HTTP_X_FORWARDED_HOST": "portal.example", "HTTP_X_FORWARDED_PROTO": "https"}
    outside = bound.prove(url="https://portal.example/whoami/", access_token=token)
    assert bound.get(token, outside, **forwarded).status_code == 200
    assert (
        bound.get(token, bound.prove(url="https://internal/whoami/", access_token=token), **forwarded).status_code
        == 401
    )


def test_invalid_token_uses_no_proof_up(bound: BoundApp) -> None:
    token = bound.token()
    assert bound.get(f"{token[:-4]}AAAA", bound.prove(access_token=f"{token[:-4]}AAAA")).status_code == 401
    assert not UsedIdentifier.objects.filter(kind="dpop").exists()
    assert bound.get(token, bound.prove(access_token=token)).status_code == 200
    (row,) = UsedIdentifier.objects.filter(kind="dpop")
    assert timedelta(seconds=60) < row.until - clock.now() <= timedelta(seconds=70)


def test_proof_in_a_transaction_of_the_caller_is_used_once(bound: BoundApp) -> None:
    token = bound.token()
    proof = bound.prove(access_token=token)
    with transaction.atomic():
        assert bound.get(token, proof).status_code == 200
    assert bound.get(token, proof).status_code == 401


@pytest.mark.parametrize("method", METHODS)
def test_api_that_requires_its_nonce_sends_it(method: str, bound: BoundApp, declare: Declare) -> None:
    declare(method=method, dpop_nonce=True)
    token = bound.token()
    for wrong in ("", "another", create_nonce(clock.now())[:-2] + "AA"):
        refused = bound.get(token, bound.prove(access_token=token, nonce=wrong))
        assert refused.status_code == 401
        assert refused["WWW-Authenticate"].startswith('DPoP error="use_dpop_nonce", ')
    nonce = refused["DPoP-Nonce"]
    accepted = bound.get(token, bound.prove(access_token=token, nonce=nonce))
    assert (accepted.status_code, is_current_nonce(accepted["DPoP-Nonce"], now=clock.now())) == (200, True)
    with ahead(NONCE_LIFETIME.total_seconds() + 60):
        refused = bound.get(token, bound.prove(access_token=token, nonce=nonce))
        assert refused["WWW-Authenticate"].startswith('DPoP error="use_dpop_nonce", ')
    assert refusals() == [], "the first request of each client is no attack"
    declare(method=method)
    accepted = bound.get(token, bound.prove(access_token=token))
    assert (accepted.status_code, "DPoP-Nonce" in accepted) == (200, False)


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda data: data.hex()))
def test_invented_nonce_is_refused(nonce: str) -> None:
    assert not is_current_nonce(nonce, now=datetime(2026, 11, 24, tzinfo=UTC))


def test_request_without_credentials_gets_both_challenges(bound: BoundApp) -> None:
    response = bound.app.client.get("/whoami/")
    assert response["WWW-Authenticate"] == CHALLENGES


def test_introspected_dpop_token_without_a_thumbprint_is_refused(
    bound: BoundApp, declare: Declare, op: DemoProvider
) -> None:
    declare(method="introspection", introspection_cache=0)

    def omit_cnf(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "introspection":
            exchange.reply.json.pop("cnf", None)

    token = bound.token()
    assert bound.get(token, bound.prove(access_token=token)).status_code == 200
    op.mutate = omit_cnf
    for scheme in ("DPoP", "Bearer"):
        assert bound.get(token, bound.prove(access_token=token), scheme=scheme).status_code == 401
    assert refusals() == [("cnf_missing", "default", "failure")] * 2
