"""Trust chains over real sockets: the search, its limits, outages, and the keys for tokens."""

import json
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.federation.entity_statement import build_entity_configuration_request
from django_phi_oidc.contrib.federation.entity_statements import (
    MAX_AUTHORITY_HINTS,
    MAX_FETCHES,
    fetch_trust_chain,
)
from django_phi_oidc.contrib.federation.errors import FederationCode
from django_phi_oidc.contrib.federation.metadata_source import FRESH_CHAIN_SECONDS
from django_phi_oidc.contrib.federation.trust_chain import TrustChain
from django_phi_oidc.errors import Code, KeyNotFound
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.provider.call_limit import MAX_FAILURES, STALLED_SECONDS
from django_phi_oidc.provider.metadata_cache import REFETCH_COOLDOWN_SECONDS, STALE_IF_ERROR_SECONDS
from django_phi_oidc.provider.registry import Provider
from django_phi_oidc.testing.mock_provider import create_signing_key
from tests.support.client_keys import create_private_key_pem
from tests.support.error_codes import raises
from tests.support.federation import HANGING, Entity, FederationServer, serving_federation
from tests.support.scripted_server import reply

pytestmark = pytest.mark.sqlite
Declare = Callable[..., ProviderDeclaration]
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
PEM, FEDERATION_PEM = create_private_key_pem("EC"), create_private_key_pem("EC")
UNAVAILABLE = reply(status="503 Service Unavailable")


@pytest.fixture
def served(tls: ssl.SSLContext) -> Iterator[FederationServer]:
    with serving_federation(tls, now=NOW) as served:
        yield served


class Member:
    """The portal as a member of the federation, with a clock of its own."""

    def __init__(self, served: FederationServer, declare: Declare) -> None:
        self.served, self.seconds = served, 0.0
        federation = served.federation
        self.declaration = declare(
            issuer=federation.op,
            client_id="https://portal.example",
            client_secret="",
            token_endpoint_auth_method="private_key_jwt",
            client_keys=PEM,
            par="require",
            federation={
                "trust_anchor": federation.anchor,
                "trust_anchor_keys": federation[federation.anchor].jwks,
                "authority_hints": [federation.anchor],
                "keys": FEDERATION_PEM,
            },
        )
        metadata = federation[federation.op].metadata["openid_provider"]
        metadata["pushed_authorization_request_endpoint"] = f"{federation.op}/par"
        self.transport = HTTPTransport(self.declaration)
        self.restart()

    def restart(self) -> None:
        """Forget all that is cached."""
        self.provider = Provider(declaration=self.declaration, transport=self.transport, monotonic=lambda: self.seconds)

    def fetch(self) -> TrustChain:
        return fetch_trust_chain(self.declaration, transport=self.transport, timeout_seconds=5, now=NOW)

    def get_metadata(self) -> Any:
        with clock.override_clock(lambda: NOW + timedelta(seconds=self.seconds)):
            return self.provider.get_metadata(timeout_seconds=5)

    def get_key(self, kid: str, *, source: Any = "provider") -> Any:
        with clock.override_clock(lambda: NOW + timedelta(seconds=self.seconds)):
            keys = self.provider.get_key_set(timeout_seconds=5, source=source)
            return keys.get_key(kid=kid, alg="ES256")

    def break_down(self, *identifiers: str) -> None:
        """Make these entities answer 503."""
        base = self.served.server.url.removesuffix("/")
        for identifier in identifiers:
            self.served.responses[f"{identifier.removeprefix(base)}/.well-known/openid-federation"] = UNAVAILABLE


@pytest.fixture
def member(served: FederationServer, declare: Declare) -> Iterator[Member]:
    member = Member(served, declare)
    yield member
    member.transport.close()


def test_chain_is_found_over_the_intermediate_by_five_requests(member: Member) -> None:
    federation = member.served.federation
    assert member.fetch().entity_identifiers == (federation.op, federation.middle, federation.anchor)
    well_known = "/.well-known/openid-federation"
    paths = [target.partition("?")[0] for target in member.served.targets]
    assert paths == [
        f"/op{well_known}",
        f"/anchor{well_known}",
        f"/middle{well_known}",
        "/middle/fetch",
        "/anchor/fetch",
    ]


def test_trust_anchor_is_asked_before_other_superiors(member: Member) -> None:
    federation = member.served.federation
    federation[federation.op].superiors = (federation.middle, federation.anchor)
    federation[federation.anchor].subordinates[federation.op] = {}
    assert member.fetch().entity_identifiers == (federation.op, federation.anchor)
    assert not any(target.startswith("/middle") for target in member.served.targets)


def test_other_path_is_used_if_one_fails(member: Member) -> None:
    federation = member.served.federation
    federation[federation.op].superiors = (federation.anchor, f"{federation.op}/missing", federation.middle)
    assert member.fetch().entity_identifiers == (federation.op, federation.middle, federation.anchor)


def test_loop_of_superiors_ends_without_a_chain(member: Member) -> None:
    federation = member.served.federation
    member.fetch()
    other = federation.middle.replace("middle", "other")
    federation.entities[other] = Entity(other, (federation.middle,), subordinates={federation.middle: {}})
    federation[federation.middle].superiors = (other,)
    federation[federation.middle].subordinates[other] = {}
    member.served.server.requests.clear()
    with raises(FederationCode.TRUST_CHAIN_INVALID):
        member.fetch()
    assert len(member.served.targets) < MAX_FETCHES


def test_number_of_requests_is_limited(member: Member) -> None:
    """A provider can name superiors that are not its own."""
    federation = member.served.federation
    names = [f"{federation.middle}{number}" for number in range(MAX_AUTHORITY_HINTS + 5)]
    for name in names:
        superiors = tuple(f"{name}/{number}" for number in range(20))
        federation.entities[name] = Entity(name, superiors, subordinates={federation.op: {}})
    federation[federation.op].superiors = (*names, federation.middle)
    with raises(FederationCode.TRUST_CHAIN_INVALID):
        member.fetch()
    assert len(member.served.targets) == MAX_FETCHES
    for name in names:
        federation[name].superiors = ()
    federation[federation.op].superiors = (*names[:4], federation.middle)
    assert member.fetch().entity_identifiers[-1] == federation.anchor


def test_endless_path_of_superiors_is_limited(member: Member) -> None:
    federation = member.served.federation
    names = [federation.middle, *(f"{federation.middle}{number}" for number in range(20))]
    for lower, upper in pairwise(names):
        federation.entities[upper] = Entity(upper, subordinates={lower: {}})
        federation[lower].superiors = (upper,)
    with raises(FederationCode.TRUST_CHAIN_INVALID):
        member.fetch()
    assert len(member.served.targets) <= MAX_FETCHES


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1/fetch", "", 7, "https://127.0.0.1/fetch#x"])
def test_fetch_endpoint_is_an_https_url(member: Member, endpoint: Any) -> None:
    federation = member.served.federation
    member.fetch()
    metadata = {"federation_entity": {"federation_fetch_endpoint": endpoint}}
    federation[federation.middle].configuration = {"metadata": metadata}
    with raises(FederationCode.TRUST_CHAIN_INVALID, Code.TRANSPORT_NOT_HTTPS):
        member.fetch()


def test_provider_that_no_superior_lists_is_refused(member: Member) -> None:
    federation = member.served.federation
    member.fetch()
    del federation[federation.middle].subordinates[federation.op]
    with raises(FederationCode.TRUST_CHAIN_INVALID):
        member.fetch()


def test_trust_anchor_with_other_keys_is_refused_before_superiors_are_asked(member: Member) -> None:
    federation = member.served.federation
    federation[federation.anchor].key = create_signing_key("ES256")
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        member.fetch()
    assert len(member.served.targets) == 2


def test_outage_is_no_statement_about_the_provider(member: Member) -> None:
    federation = member.served.federation
    for identifier in (federation.op, federation.middle, federation.anchor):
        member.served.responses.clear()
        member.fetch()
        member.break_down(identifier)
        with raises(Code.TRANSPORT_UNREACHABLE):
            member.fetch()


def test_outage_of_one_path_is_reported_before_the_fault_of_another(member: Member) -> None:
    federation = member.served.federation
    federation[federation.op].superiors = (federation.middle, f"{federation.op}/missing")
    member.fetch()
    member.break_down(federation.middle)
    with raises(Code.TRANSPORT_UNREACHABLE):
        member.fetch()


def test_metadata_of_the_chain_replace_discovery(member: Member) -> None:
    federation = member.served.federation
    metadata = member.get_metadata()
    assert metadata.issuer == federation.op
    assert metadata.token_endpoint == f"{federation.op}/token_endpoint"
    assert metadata.statement.expires_at == NOW + timedelta(hours=12)
    assert member.get_metadata() is metadata
    assert not any("openid-configuration" in target for target in member.served.targets)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"issuer": "https://other.example"}, Code.ISSUER_MISMATCH),
        ({"client_registration_types_supported": ["explicit"]}, Code.METADATA_INVALID),
        ({"client_registration_types_supported": "automatic"}, Code.METADATA_INVALID),
        ({"jwks": {}}, Code.METADATA_INVALID),
        ({"jwks": {"keys": {}}}, Code.METADATA_INVALID),
        ({"signed_jwks_uri": "http://op.example/jwks"}, Code.TRANSPORT_NOT_HTTPS),
        ({"signed_jwks_uri": 7}, Code.METADATA_INVALID),
        ({"token_endpoint": "http://op.example/token"}, Code.TRANSPORT_NOT_HTTPS),
        ({"subject_types_supported": ["public"]}, Code.PAIRWISE_UNSUPPORTED),
    ],
    ids=str,
)
def test_resolved_metadata_with_one_fault_are_refused(member: Member, changes: dict[str, Any], code: Code) -> None:
    federation = member.served.federation
    metadata = federation[federation.op].metadata["openid_provider"]
    federation[federation.op].metadata["openid_provider"] = {**metadata, **changes}
    with raises(code):
        member.get_metadata()
    federation[federation.op].metadata["openid_provider"] = metadata
    assert member.get_metadata().issuer == federation.op


def test_chain_is_fetched_again_after_an_hour(member: Member) -> None:
    member.get_metadata()
    count = len(member.served.targets)
    member.seconds = FRESH_CHAIN_SECONDS - 1
    member.get_metadata()
    assert len(member.served.targets) == count
    member.seconds = FRESH_CHAIN_SECONDS
    member.get_metadata()
    assert len(member.served.targets) == 2 * count


def test_outage_of_the_trust_anchor_is_survived_until_the_chain_expires(member: Member) -> None:
    """No discovery follows: the metadata of the federation are the only ones."""
    federation = member.served.federation
    cached = member.get_metadata()
    member.break_down(federation.anchor)
    validity_seconds = timedelta(hours=12).total_seconds()
    for member.seconds in (FRESH_CHAIN_SECONDS, 11 * 3600, validity_seconds - 1):
        assert member.get_metadata() is cached
        assert member.get_key(federation.token_key.kid).kid == federation.token_key.kid
    member.seconds = validity_seconds
    with raises(Code.TRANSPORT_UNREACHABLE):
        member.get_metadata()
    with raises(Code.TRANSPORT_UNREACHABLE):
        member.get_key(federation.token_key.kid)
    assert not any("openid-configuration" in target for target in member.served.targets)


def test_provider_that_left_the_federation_is_refused_before_its_chain_expires(member: Member) -> None:
    federation = member.served.federation
    cached = member.get_metadata()
    del federation[federation.middle].subordinates[federation.op]
    limit = FRESH_CHAIN_SECONDS + STALE_IF_ERROR_SECONDS
    member.seconds = limit - 1
    assert member.get_metadata() is cached
    member.seconds = limit + REFETCH_COOLDOWN_SECONDS
    with raises(FederationCode.TRUST_CHAIN_INVALID):
        member.get_metadata()


def test_keys_of_the_chain_are_fetched_again_for_an_unknown_kid(member: Member) -> None:
    federation = member.served.federation
    assert member.get_key(federation.token_key.kid).kid == federation.token_key.kid
    rotated = create_signing_key("ES256")
    federation[federation.op].metadata["openid_provider"]["jwks"] = {"keys": [rotated.public_jwk()]}
    assert member.get_key(rotated.kid).kid == rotated.kid
    with raises(KeyNotFound):
        member.get_key(federation.token_key.kid)


def test_keys_in_the_chain_precede_the_signed_set_and_this_precedes_jwks_uri(member: Member) -> None:
    federation = member.served.federation
    op = federation[federation.op]
    signed, by_uri = create_signing_key("ES256"), create_signing_key("ES256")
    op.metadata["openid_provider"] |= {
        "signed_jwks_uri": f"{federation.op}/signed",
        "jwks_uri": f"{federation.op}/jwks",
    }
    claims = {"iss": federation.op, "sub": federation.op, "keys": [signed.public_jwk()]}
    member.served.responses["/op/jwks"] = reply(json.dumps({"keys": [by_uri.public_jwk()]}).encode())
    member.served.responses["/op/signed"] = reply(federation.sign(op, claims, typ="jwk-set+jwt").encode())
    assert member.get_key(federation.token_key.kid).kid == federation.token_key.kid
    for used, removed in ((signed, "jwks"), (by_uri, "signed_jwks_uri")):
        with raises(KeyNotFound):
            member.get_key(used.kid)
        del op.metadata["openid_provider"][removed]
        member.restart()
        assert member.get_key(used.kid).kid == used.kid


def test_signed_set_of_another_signer_is_refused(member: Member) -> None:
    federation = member.served.federation
    metadata = federation[federation.op].metadata["openid_provider"]
    metadata["signed_jwks_uri"] = f"{federation.op}/signed"
    del metadata["jwks"]
    claims = {"iss": federation.op, "sub": federation.op, "keys": [federation.token_key.public_jwk()]}
    forged = federation.sign(federation[federation.middle], claims, typ="jwk-set+jwt")
    member.served.responses["/op/signed"] = reply(forged.encode())
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        member.get_key(federation.token_key.kid)
    for status in ("404 Not Found", "500 Internal Server Error"):
        member.served.responses["/op/signed"] = reply(forged.encode(), status=status)
        with raises(Code.METADATA_INVALID):
            member.get_key(federation.token_key.kid)


def test_keys_may_be_at_jwks_uri(member: Member) -> None:
    federation = member.served.federation
    metadata = federation[federation.op].metadata["openid_provider"]
    jwks = metadata.pop("jwks")
    with raises(Code.METADATA_INVALID):
        member.get_metadata()
    metadata["jwks_uri"] = f"{federation.op}/jwks"
    member.served.responses["/op/jwks"] = reply(json.dumps(jwks).encode())
    assert member.get_key(federation.token_key.kid).kid == federation.token_key.kid


def test_trust_anchor_that_hangs_does_not_suspend_the_provider(member: Member) -> None:
    """Its own entity configuration, which is fetched first, shows that it answers."""
    federation = member.served.federation
    member.served.responses["/anchor/.well-known/openid-federation"] = HANGING
    for _ in range(MAX_FAILURES + 1):
        with raises(Code.TRANSPORT_TIMEOUT):
            member.provider.get_metadata(timeout_seconds=STALLED_SECONDS + 0.1)
    request = build_entity_configuration_request(federation.op)
    assert member.transport.send(request, timeout_seconds=5).status == 200
