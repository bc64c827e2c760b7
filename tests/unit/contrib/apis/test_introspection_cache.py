"""The introspection cache: how long a positive result is valid, and what is never stored."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.apis.access_token import AccessToken, ResourceServer
from django_phi_oidc.contrib.apis.declaration import APIDeclaration
from django_phi_oidc.contrib.apis.introspection_cache import IntrospectionCache, introspect_token
from django_phi_oidc.contrib.common.api_errors import AccessTokenInvalid, IntrospectionFailed
from django_phi_oidc.errors import Code, TransportError
from django_phi_oidc.http.transport import TransportRequest, TransportResponse
from django_phi_oidc.provider.registry import Provider
from tests.support.error_codes import raises

ISSUER, AUDIENCE = "https://op.example", "https://portal.example/api"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
AUDIENCE_API = ResourceServer(
    APIDeclaration(provider="default", audience=AUDIENCE, method="introspection"),
    ProviderDeclaration(name="default", issuer=ISSUER, client_id="portal", client_secret="s"),
)


class IntrospectionStub:
    """A provider that answers every introspection the same, and a clock that each request advances."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.duration = 0.0
        self.request_count = 0
        self.answer: Any = self.active()
        self.cache = IntrospectionCache(monotonic=lambda: self.seconds, max_tokens=3)
        self.provider = Provider(declaration=AUDIENCE_API.provider, transport=self, monotonic=lambda: self.seconds)

    def active(self, seconds: int = 600) -> dict[str, Any]:
        exp = int((NOW + timedelta(seconds=seconds)).timestamp())
        return {"active": True, "aud": AUDIENCE, "sub": "s", "client_id": "app", "exp": exp}

    def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
        if request.method == "GET":
            return json_response(
                {
                    "issuer": ISSUER,
                    **{name: f"{ISSUER}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")},
                    **{name: f"{ISSUER}/{name}" for name in ("revocation_endpoint", "introspection_endpoint")},
                    "subject_types_supported": ["pairwise"],
                    "id_token_signing_alg_values_supported": ["ES256"],
                }
            )
        self.request_count += 1
        self.seconds += self.duration
        if isinstance(self.answer, Exception):
            raise self.answer
        return json_response(self.answer)

    def introspect(
        self,
        token: str = "t",
        *,
        audience: ResourceServer = AUDIENCE_API,
        now: datetime = NOW,
        proofs: Mapping[str, str] = MappingProxyType({}),
    ) -> AccessToken:
        return introspect_token(
            token,
            audience=audience,
            provider=self.provider,
            proofs=proofs,
            now=now,
            timeout_seconds=2,
            cache=self.cache,
        )


def json_response(members: Any) -> TransportResponse:
    return TransportResponse(
        status=200, headers={"content-type": "application/json"}, body=json.dumps(members).encode()
    )


@pytest.fixture
def op() -> IntrospectionStub:
    return IntrospectionStub()


def cached_for(cache: timedelta) -> ResourceServer:
    return AUDIENCE_API._replace(api=replace(AUDIENCE_API.api, introspection_cache=cache))


def test_cached_token_is_refused_without_the_key_that_it_is_bound_to(op: IntrospectionStub) -> None:
    proofs = {"x5t#S256": "A" * 43}
    op.answer["cnf"] = proofs
    refused: list[dict[str, str]] = [{}, {"x5t#S256": "B" * 43}]
    for wrong in refused:
        with pytest.raises(AccessTokenInvalid) as fault:
            op.introspect(proofs=wrong)
        assert (fault.value.rule, op.request_count) == ("cnf_mismatch", 1)
        assert op.introspect(proofs=proofs).confirmation == (("x5t#S256", "A" * 43),)
    assert op.request_count == 1


def test_active_token_is_cached_from_the_start_of_the_request(op: IntrospectionStub) -> None:
    op.duration = 3
    token = op.introspect()
    op.seconds = 9.9
    assert (op.introspect(), op.request_count) == (token, 1)
    op.seconds = 10
    assert (op.introspect(), op.request_count) == (token, 2)


def test_active_token_is_not_cached_beyond_its_expiry(op: IntrospectionStub) -> None:
    op.answer = op.active(5)
    op.introspect()
    op.introspect(now=NOW + timedelta(seconds=4))
    assert op.request_count == 1
    op.answer = {"active": False}
    with raises(AccessTokenInvalid):
        op.introspect(now=NOW + timedelta(seconds=5))


def test_token_is_introspected_each_time_without_a_cache(op: IntrospectionStub) -> None:
    for _ in range(2):
        op.introspect(audience=cached_for(timedelta(0)))
    assert op.request_count == 2


NEGATIVE_RESULTS: list[tuple[Any, type[Exception]]] = [
    ({"active": False}, AccessTokenInvalid),
    ({}, IntrospectionFailed),
    (TransportError(Code.TRANSPORT_TIMEOUT), Code.TRANSPORT_TIMEOUT),
]


@pytest.mark.parametrize(("answer", "error"), NEGATIVE_RESULTS)
def test_negative_result_is_not_cached(answer: Any, error: type[Exception], op: IntrospectionStub) -> None:
    for _ in range(2):
        op.answer = answer
        with raises(error):
            op.introspect()
    op.answer = op.active()
    assert op.introspect().client_id == "app"
    assert op.request_count == 3


def test_cache_entry_is_for_one_token_and_one_declared_api(op: IntrospectionStub) -> None:
    other = AUDIENCE_API._replace(api=replace(AUDIENCE_API.api, audience="other"))
    op.introspect()
    op.introspect("another")
    with raises(AccessTokenInvalid):
        op.introspect(audience=other)
    op.introspect(audience=cached_for(timedelta(seconds=5)))
    assert op.request_count == 4


def test_cache_evicts_the_least_recently_used_token(op: IntrospectionStub) -> None:
    for token in ("a", "b", "c", "a", "d"):
        op.introspect(token)
    assert op.request_count == 4
    op.introspect("a")
    assert op.request_count == 4
    op.introspect("b")
    assert op.request_count == 5


def test_cache_stores_no_token(op: IntrospectionStub) -> None:
    op.introspect("secret-token")
    stored = repr(vars(op.cache))
    assert not any(text in stored for text in ("secret-token", repr(sha256(b"secret-token").digest())))
    keys = {cache.compute_key("t", AUDIENCE_API) for cache in (op.cache, op.cache, IntrospectionCache())}
    assert len(keys) == 2, "keys differ between caches"
