"""The doctor at a member of a federation: the provider's chain, the portal's own, and the keys for tokens."""

import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.testing.mock_provider import create_signing_key
from tests.support.client_keys import create_private_key_pem
from tests.support.federation import Entity, FederationServer, serving_federation
from tests.support.tls import CertificateAuthority
from tests.unit.contrib.doctor.test_probe import Findings, list_findings, run

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
OF_FEDERATION = ("federation", "membership", "keys")
RP_METADATA = {"token_endpoint_auth_method": "private_key_jwt", "subject_type": "pairwise"}


@pytest.fixture
def served(tls: ssl.SSLContext, authority: CertificateAuthority, settings: Any) -> Iterator[FederationServer]:
    """A federation with the portal as a member."""
    with serving_federation(tls, now=clock.now()) as served:
        federation = served.federation
        op = federation[federation.op].metadata["openid_provider"]
        op["pushed_authorization_request_endpoint"] = f"{federation.op}/par"
        rp = federation.op.replace("/op", "/rp")
        federation.entities[rp] = Entity(rp, (federation.anchor,), metadata={"openid_relying_party": RP_METADATA})
        federation[federation.anchor].subordinates[rp] = {}
        declared = {
            "issuer": federation.op,
            "client_id": rp,
            "token_endpoint_auth_method": "private_key_jwt",
            "client_keys": create_private_key_pem("EC"),
            "par": "require",
            "ca_bundle": authority.certificate_path,
            "federation": {
                "trust_anchor": federation.anchor,
                "trust_anchor_keys": federation[federation.anchor].jwks,
                "authority_hints": [federation.anchor],
                "keys": create_private_key_pem("EC"),
            },
        }
        settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declared}}
        yield served


def list_federation_findings() -> Findings:
    return [finding for finding in list_findings() if finding[1] in OF_FEDERATION]


def test_sound_federation_is_reported_with_its_chain_and_expiry(served: FederationServer) -> None:
    federation = served.federation
    federation[federation.op].configuration = {"trust_marks": [{"trust_mark_type": "https://ta.example/mark"}]}
    lines = [line for line in run() if line.split()[1:2] and line.split()[1] in OF_FEDERATION]
    until = federation.now + timedelta(hours=12)
    assert [line.split(maxsplit=2)[::2] for line in lines] == [
        [
            "ok",
            f"{federation.op} < {federation.middle} < {federation.anchor}, valid until {until:%Y-%m-%d %H:%M} UTC",
        ],
        ["ok", "trust marks, not verified: https://ta.example/mark"],
        ["ok", f"the portal: {federation.op.replace('/op', '/rp')} < {federation.anchor}"],
        ["ok", "ES256: 1"],
    ]


def test_provider_without_a_chain_is_a_failure_and_nothing_else_is_requested(served: FederationServer) -> None:
    federation = served.federation
    del federation[federation.middle].subordinates[federation.op]
    served.server.requests.clear()
    assert list_findings() == [("failure", "federation", "trust_chain_invalid")]
    assert not any("openid-configuration" in target or "/par" in target for target in served.targets)


def test_chain_that_expires_soon_is_a_warning(served: FederationServer) -> None:
    federation = served.federation
    soon = {"exp": (clock.now() + timedelta(minutes=59)).timestamp()}
    federation[federation.middle].subordinates[federation.op] = soon
    assert list_federation_findings()[0] == ("warning", "federation", "chain_expires")


def test_portal_that_the_trust_anchor_does_not_list_is_a_failure(served: FederationServer) -> None:
    federation = served.federation
    del federation[federation.anchor].subordinates[federation.op.replace("/op", "/rp")]
    assert ("failure", "membership", "trust_chain_invalid") in list_federation_findings()


@pytest.mark.parametrize(
    ("parameter", "value", "is_supported"),
    [
        ("token_endpoint_auth_method", "self_signed_tls_client_auth", False),
        ("token_endpoint_auth_method", "private_key_jwt", True),
        ("subject_type", "public", False),
        ("id_token_signed_response_alg", "RS512", False),
        ("id_token_signed_response_alg", "ES256", True),
        ("request_object_signing_alg", "RS256", False),
    ],
)
def test_policy_that_the_portal_does_not_support_is_a_failure(
    served: FederationServer, parameter: str, value: str, is_supported: bool
) -> None:
    federation = served.federation
    policy = {"openid_relying_party": {parameter: {"value": value}}}
    rp = federation.op.replace("/op", "/rp")
    federation[federation.anchor].subordinates[rp] = {"metadata_policy": policy}
    membership = [finding for finding in list_federation_findings() if finding[1] == "membership"]
    code = "" if is_supported else "metadata_policy_error"
    assert membership == [("ok" if is_supported else "failure", "membership", code)]


def test_keys_that_cannot_be_verified_are_a_failure(served: FederationServer) -> None:
    federation = served.federation
    op = federation[federation.op]
    op.metadata["openid_provider"]["jwks"] = {"keys": [create_signing_key("RS256").public_jwk()]}
    assert ("failure", "keys", "key_not_found") in list_federation_findings()
    del op.metadata["openid_provider"]["jwks"]
    op.metadata["openid_provider"]["signed_jwks_uri"] = f"{federation.op}/signed"
    assert ("failure", "keys", "metadata_invalid") in list_federation_findings()
