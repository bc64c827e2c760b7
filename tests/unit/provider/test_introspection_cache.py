"""For how long a process relies on what the provider said of a token, and what it never keeps."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from django_phi_oidc.config.apis import APIDeclaration
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import AccessTokenInvalid, IntrospectionFailed, TransportTimeout
from django_phi_oidc.oidc.access_token import AccessToken, ResourceServer
from django_phi_oidc.oidc.transport import TransportRequest, TransportResponse
from django_phi_oidc.provider.introspection_cache import IntrospectionCache, introspect_token
from django_phi_oidc.provider.registry import Provider

ISSUER, AUDIENCE = "https://op.example", "https://portal.example/api"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MEANT = ResourceServer(
    APIDeclaration(provider="default", audience=AUDIENCE, method="introspection"),
    ProviderDeclaration(name="default", issuer=ISSUER, client_id="portal", client_secret="s"),
)


class Asked:
    """An OP that says the same of every token, and a clock that each question moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.takes = 0.0
        self.questions = 0
        self.says: Any = self.alive()
        self.memory = IntrospectionCache(monotonic=lambda: self.seconds, max_tokens=3)
        self.provider = Provider(declaration=MEANT.provider, transport=self, monotonic=lambda: self.seconds)

    def alive(self, seconds: int = 600) -> dict[str, Any]:
        exp = int((NOW + timedelta(seconds=seconds)).timestamp())
        return {"active": True, "aud": AUDIENCE, "sub": "s", "client_id": "app", "exp": exp}

    def send(self, request: TransportRequest, *, deadline: float) -> TransportResponse:
        if request.method == "GET":
            return answer(
                {
                    "issuer": ISSUER,
                    **{name: f"{ISSUER}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")},
                    **{name: f"{ISSUER}/{name}" for name in ("revocation_endpoint", "introspection_endpoint")},
                    "subject_types_supported": ["pairwise"],
                    "id_token_signing_alg_values_supported": ["ES256"],
                }
            )
        self.questions += 1
        self.seconds += self.takes
        if isinstance(self.says, Exception):
            raise self.says
        return answer(self.says)

    def ask(self, token: str = "t", *, meant: ResourceServer = MEANT, now: datetime = NOW) -> AccessToken:
        return introspect_token(token, audience=meant, provider=self.provider, now=now, deadline=2, cache=self.memory)


def answer(members: Any) -> TransportResponse:
    return TransportResponse(
        status=200, headers={"content-type": "application/json"}, body=json.dumps(members).encode()
    )


@pytest.fixture
def op() -> Asked:
    return Asked()


def cached_for(cache: timedelta) -> ResourceServer:
    return MEANT._replace(api=replace(MEANT.api, introspection_cache=cache))


def test_yes_counts_for_the_declared_time_from_before_the_question(op: Asked) -> None:
    op.takes = 3
    told = op.ask()
    op.seconds = 9.9
    assert (op.ask(), op.questions) == (told, 1)
    op.seconds = 10
    assert (op.ask(), op.questions) == (told, 2)


def test_yes_never_counts_beyond_the_tokens_end(op: Asked) -> None:
    op.says = op.alive(5)
    op.ask()
    op.ask(now=NOW + timedelta(seconds=4))
    assert op.questions == 1
    op.says = {"active": False}
    with pytest.raises(AccessTokenInvalid):
        op.ask(now=NOW + timedelta(seconds=5))


def test_yes_without_a_cache_counts_once(op: Asked) -> None:
    for _ in range(2):
        op.ask(meant=cached_for(timedelta(0)))
    assert op.questions == 2


NO: list[tuple[Any, type[Exception]]] = [
    ({"active": False}, AccessTokenInvalid),
    ({}, IntrospectionFailed),
    (TransportTimeout(), TransportTimeout),
]


@pytest.mark.parametrize(("says", "raised"), NO)
def test_no_is_never_kept(says: Any, raised: type[Exception], op: Asked) -> None:
    for _ in range(2):
        op.says = says
        with pytest.raises(raised):
            op.ask()
    op.says = op.alive()
    assert op.ask().client_id == "app"
    assert op.questions == 3


def test_yes_is_of_one_token_at_one_api_as_it_is_declared(op: Asked) -> None:
    other = MEANT._replace(api=replace(MEANT.api, audience="other"))
    op.ask()
    op.ask("another")
    with pytest.raises(AccessTokenInvalid):
        op.ask(meant=other)
    op.ask(meant=cached_for(timedelta(seconds=5)))
    assert op.questions == 4


def test_memory_is_bounded_and_forgets_what_was_not_used(op: Asked) -> None:
    for token in ("a", "b", "c", "a", "d"):
        op.ask(token)
    assert op.questions == 4
    op.ask("a")
    assert op.questions == 4
    op.ask("b")
    assert op.questions == 5


def test_memory_holds_no_token(op: Asked) -> None:
    op.ask("a-token-of-somebody")
    kept = repr(vars(op.memory))
    assert not any(each in kept for each in ("a-token-of-somebody", repr(sha256(b"a-token-of-somebody").digest())))
    keys = {memory.compute_key("t", MEANT) for memory in (op.memory, op.memory, IntrospectionCache())}
    assert len(keys) == 2, "who has one process's memory knows nothing of another's"
