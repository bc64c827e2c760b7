"""Access tokens of the provider in place of the token of a client: which one is accepted, and which others are not."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.audit.events import Action
from django_phi_oidc.contrib.scim.models import SCIMUser
from django_phi_oidc.oidc.dpop import SEED_BYTES, ProofKey, create_proof_key
from django_phi_oidc.provider.dpop_requests import create_request_proof
from django_phi_oidc.testing.mock_provider import Client as Registered
from django_phi_oidc.testing.mock_provider import (
    DemoProvider,
    MutableExchange,
    Reply,
    create_signing_keys,
    demo_accounts,
)
from tests.support.phi_oidc_settings import override_provider
from tests.support.scim_fixtures import BASE, SCIM, connect_client, declare_scim
from tests.support.session_fixtures import events

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
AUDIENCE = "https://portal.example/oidc/scim/v2"
TOKENS = {"audience": AUDIENCE, "method": "jwt", "subs": {"hr-sync": "service-of-hr-sync"}}
OWN = {"audience": AUDIENCE, "scope": "scim", "sub": "service-of-hr-sync"}


@pytest.fixture
def op(settings: Any) -> Iterator[DemoProvider]:
    """Run the provider of `default`, whose access tokens are declared."""
    own = settings.PHI_OIDC["PROVIDERS"]["default"]
    clients = [Registered(own["client_id"], own["client_secret"], ["https://portal.example/oidc/callback/"])]
    provider = DemoProvider(clients, demo_accounts(), keys=create_signing_keys(), signing_alg="ES256")
    with provider.running():
        declare_scim(settings)
        declared = {"issuer": provider.issuer, "allow_loopback_http": True, "scim": {"subject": "extension"}}
        settings.PHI_OIDC = override_provider(settings.PHI_OIDC, **declared)
        declare(settings, **TOKENS)
        yield provider


def declare(settings: Any, **tokens: Any) -> None:
    scim = {"subject": "extension", "access_tokens": tokens or None}
    settings.PHI_OIDC = override_provider(settings.PHI_OIDC, scim=scim)


def send(token: str, scheme: str = "Bearer", **headers: str) -> Any:
    body = json.dumps({"userName": "ann"})
    headers = {"Authorization": f"{scheme} {token}", **headers}
    return Client().post(f"{BASE}/Users", body, "application/scim+json", secure=True, headers=headers)


def list_refusals() -> list[tuple[str, str, str, str]]:
    refused = [(event.reason, event.detail, event.provider, event.actor) for event in events(Action.SCIM_REFUSED)]
    return [
        (reason, json.loads(detail).get("rule", ""), provider, actor) for reason, detail, provider, actor in refused
    ]


def test_token_that_a_declared_client_got_for_itself_is_accepted(op: DemoProvider) -> None:
    assert send(op.create_client_token("hr-sync", **OWN)).status_code == 201
    (event,) = events(Action.SCIM_USER_CREATED)
    assert (event.actor, event.provider) == ("scim:oauth:hr-sync", "default")
    assert send(op.create_client_token("hr-sync", **OWN), scheme="bEARER").status_code == 409, "accepted, too"


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no scope": ({"scope": ""}, "scope_missing", "default"),
    "another scope": ({"scope": "scim:read"}, "scope_missing", "default"),
    "another audience": ({"audience": "https://portal.example/api"}, "aud_invalid", "default"),
    "a person": ({"sub": "amina"}, "client_for_person", "default"),
    "the client id, which is not declared as the sub": ({"sub": "hr-sync"}, "client_for_person", "default"),
    "another client": ({"client_id": "lab"}, "client_not_allowed", "default"),
    "another issuer": ({"iss": "https://evil.example"}, "iss_invalid", ""),
    "expired": ({"exp": 1}, "exp_invalid", "default"),
    "bound to a key that is not proved": ({"cnf": {"jkt": "A" * 43}}, "cnf_mismatch", "default"),
}


@pytest.mark.parametrize(("changes", "rule", "provider"), REFUSED.values(), ids=REFUSED)
def test_other_token_is_refused(changes: dict[str, Any], rule: str, provider: str, op: DemoProvider) -> None:
    refused = send(op.create_client_token("hr-sync", **{**OWN, **changes}))
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, 'Bearer realm="scim"')
    assert list_refusals() == [("scim_access_token_invalid", rule, provider, "")]
    assert not SCIMUser.objects.exists()


def test_token_of_another_declared_provider_manages_only_that_one(op: DemoProvider, settings: Any) -> None:
    """It is verified with the keys of its issuer, so a key of one provider makes no token of another."""
    settings.PHI_OIDC = override_provider(
        settings.PHI_OIDC, "other", scim={"subject": "extension", "access_tokens": TOKENS}, allow_loopback_http=True
    )
    foreign = op.create_client_token("hr-sync", **OWN, iss="https://other.example.test")
    assert send(foreign).status_code == 503, "The keys of the other provider can not be fetched."
    assert send(op.create_client_token("hr-sync", **OWN)).status_code == 201
    assert SCIMUser.objects.get().provider == "default"


def test_without_declaration_no_access_token_is_accepted(op: DemoProvider, settings: Any) -> None:
    declare(settings)
    assert send(op.create_client_token("hr-sync", **OWN)).status_code == 401
    assert list_refusals() == [("scim_token_unknown", "", "", "")]


def test_token_of_a_client_stays_valid(op: DemoProvider) -> None:
    scim: SCIM = connect_client()
    assert send(scim.token).status_code == 201
    assert send(scim.token, scheme="DPoP").status_code == 401, "It is bound to no key."
    assert list_refusals() == [("scim_access_token_invalid", "token_malformed", "", "")]


def test_bound_token_needs_a_new_proof(op: DemoProvider) -> None:
    key, other = (create_proof_key(randomness.token_b64url(SEED_BYTES)) for _ in range(2))
    token = op.create_client_token("hr-sync", **OWN, cnf={"jkt": key.thumbprint})

    def prove(by: ProofKey) -> str:
        url = f"https://testserver{BASE}/Users"
        return create_request_proof(by, method="POST", url=url, access_token=token, now=clock.now())

    proof = prove(key)
    assert send(token, scheme="DPoP", DPoP=prove(other)).status_code == 401
    assert send(token, DPoP=proof).status_code == 401, "The scheme says that there is no proof."
    assert send(token, scheme="DPoP", DPoP=proof).status_code == 201
    assert send(token, scheme="DPoP", DPoP=proof).status_code == 401
    rules = [rule for _, rule, *_ in list_refusals()]
    assert rules == ["cnf_mismatch", "cnf_mismatch", "dpop_replayed"]


def test_provider_that_is_away_asks_to_repeat(op: DemoProvider) -> None:
    token = op.create_client_token("hr-sync", **OWN)
    op.stop()
    try:
        answer = send(token)
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    finally:
        op.start()
    assert not SCIMUser.objects.exists()


def test_introspected_token_is_of_a_client_too(op: DemoProvider, settings: Any) -> None:
    declare(settings, **{**TOKENS, "method": "introspection", "introspection_cache": timedelta(0)})
    answer = {"active": True, "aud": AUDIENCE, "client_id": "hr-sync", "exp": int(clock.now().timestamp()) + 60}
    answers = [{**answer, "scope": "scim", "sub": sub} for sub in ("amina", "service-of-hr-sync")]

    def introspect(endpoint: str, exchange: MutableExchange) -> Reply | None:
        return Reply(json=answers.pop(0)) if endpoint == "introspection" else None

    op.mutate = introspect
    assert [send("an-opaque-token").status_code for _ in range(2)] == [401, 201]
    assert list_refusals() == [("scim_access_token_invalid", "client_for_person", "default", "")]
