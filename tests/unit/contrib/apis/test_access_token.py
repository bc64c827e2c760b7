"""RFC 9068: each rule refuses, next to an accepted token that differs in one thing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.apis.access_token import (
    AccessToken,
    ResourceServer,
    get_resource_server,
    parse_scope,
    verify_access_token,
)
from django_phi_oidc.contrib.apis.declaration import APIDeclaration
from django_phi_oidc.contrib.common.accepted_tokens import ClientTokensDeclaration
from django_phi_oidc.contrib.common.api_errors import AccessTokenInvalid
from django_phi_oidc.errors import KeyNotFound
from django_phi_oidc.oidc.jose import encode_b64url
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from tests.support.protocol_fixtures import ISSUER

NOW = int(datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp())
API = "https://portal.example/api"
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": API,
    "sub": "yRq8c3ZbZ0xA",
    "client_id": "app",
    "iat": NOW,
    "exp": NOW + 300,
    "jti": "a-jti",
    "scope": "chart.read chart.write",
    "acr": "urn:example:loa:2",
    "auth_time": NOW - 60,
}
TYP = {"typ": "at+jwt"}
ABSENT = object()
LEEWAY = 30
PROOFS = {"x5t#S256": "A" * 43}

Sign = Callable[..., str]
Declare = Callable[..., ProviderDeclaration]
Verify = Callable[..., AccessToken]


def claims(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ABSENT}


def api(provider: str = "default", *, method: Any = "jwt", audience: str = API) -> APIDeclaration:
    return APIDeclaration(provider=provider, audience=audience, method=method)


DECLARED_API = api()
CLIENT_TOKENS = ClientTokensDeclaration(audience=API, method="jwt", subs=(("app", "service-of-app"),))


@pytest.fixture(scope="session")
def verify(keys: JSONWebKeySet, declare: Declare, now: datetime) -> Verify:
    """verify(token, leeway=…): under the default declaration with these changes."""

    def verify(
        token: str,
        *,
        proofs: Mapping[str, str] = MappingProxyType({}),
        api: APIDeclaration | ClientTokensDeclaration = DECLARED_API,
        **declared: Any,
    ) -> AccessToken:
        server = ResourceServer(api, declare(**declared))
        return verify_access_token(token, keys=keys, resource_server=server, proofs=proofs, now=now)

    return verify


NOT_TEXTS: list[tuple[str, Any]] = [("absent", ABSENT), ("empty", ""), ("null", None), ("a number", 7), ("a list", [1])]
NOT_DATES: list[tuple[str, Any]] = [("absent", ABSENT), ("text", str(NOW)), ("true", True), ("huge", 10**60)]
Row = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
ONE: dict[str, Any] = {}
TABLES: dict[str, list[Row]] = {
    # fault, declaration, accepted changes, refused changes
    "iss_invalid": [
        ("absent", ONE, {}, {"iss": ABSENT}),
        ("another", ONE, {}, {"iss": "https://other.example"}),
        ("with a slash", ONE, {}, {"iss": f"{ISSUER}/"}),
    ],
    "aud_invalid": [
        ("absent", ONE, {}, {"aud": ABSENT}),
        ("another", ONE, {"aud": [API, "lab"]}, {"aud": ["lab"]}),
        ("the client, as in an ID Token", ONE, {}, {"aud": "portal"}),
        ("a part of it", ONE, {}, {"aud": API[:-1]}),
        ("no text", ONE, {"aud": [API]}, {"aud": [API, 7]}),
    ],
    "exp_invalid": [
        *((name, ONE, {}, {"exp": value}) for name, value in NOT_DATES),
        ("over", ONE, {"exp": NOW - LEEWAY + 1, "iat": NOW - 90}, {"exp": NOW - LEEWAY, "iat": NOW - 90}),
        (
            "over, with more leeway",
            {"leeway": timedelta(seconds=120)},
            {"exp": NOW - 119, "iat": NOW - 200},
            {"exp": NOW - 120, "iat": NOW - 200},
        ),
    ],
    "iat_invalid": [
        *((name, ONE, {}, {"iat": value}) for name, value in NOT_DATES),
        ("in the future", ONE, {"iat": NOW + LEEWAY}, {"iat": NOW + LEEWAY + 1}),
    ],
    "nbf_invalid": [("in the future", ONE, {"nbf": NOW + LEEWAY}, {"nbf": NOW + LEEWAY + 1})],
    "access_token_lifetime": [
        ("over a day", ONE, {"exp": NOW + 86_400}, {"exp": NOW + 86_401}),
        ("over what is declared", {"max_access_token_lifetime": timedelta(minutes=5)}, {}, {"exp": NOW + 301}),
        ("over an hour, heart", {"profile": "heart"}, {"exp": NOW + 3600}, {"exp": NOW + 3601}),
    ],
    "sub_invalid": [
        *((name, ONE, {}, {"sub": value}) for name, value in NOT_TEXTS),
        ("too long", ONE, {"sub": "x" * 255}, {"sub": "x" * 256}),
    ],
    "client_id_invalid": [
        *((name, ONE, {}, {"client_id": value}) for name, value in NOT_TEXTS),
        ("a control character", ONE, {"client_id": "a"}, {"client_id": "a\nb"}),
        ("too long", ONE, {"client_id": "x" * 255}, {"client_id": "x" * 256}),
    ],
    "client_for_itself": [("the person is the client", ONE, {"client_id": "other"}, {"client_id": CLAIMS["sub"]})],
    "client_for_person": [
        ("a person", {"api": CLIENT_TOKENS}, {"sub": "service-of-app"}, {}),
        ("another client's account", {"api": CLIENT_TOKENS}, {"sub": "service-of-app"}, {"sub": "service-of-lab"}),
    ],
    "jti_invalid": [(name, ONE, {}, {"jti": value}) for name, value in NOT_TEXTS],
    "scope_invalid": [
        ("a list", ONE, {"scope": "a b"}, {"scope": ["a", "b"]}),
        ("null", ONE, {"scope": ABSENT}, {"scope": None}),
        ("two spaces", ONE, {"scope": ""}, {"scope": "a  b"}),
        ("a tab", ONE, {}, {"scope": "a\tb"}),
        ("a quotation mark", ONE, {"scope": "a'b"}, {"scope": 'a"b'}),
    ],
    "cnf_unsupported": [
        ("null", ONE, {}, {"cnf": None}),
        ("bound in another way", {"proofs": PROOFS}, {"cnf": PROOFS}, {"cnf": {**PROOFS, "kid": "A" * 43}}),
    ],
    "cnf_mismatch": [
        ("another certificate", {"proofs": PROOFS}, {"cnf": PROOFS}, {"cnf": {"x5t#S256": "B" * 43}}),
        ("no certificate", ONE, {}, {"cnf": PROOFS}),
        ("another key", {"proofs": {"jkt": "A" * 43}}, {"cnf": {"jkt": "A" * 43}}, {"cnf": {"jkt": "B" * 43}}),
        ("no proof", ONE, {}, {"cnf": {"jkt": "A" * 43}}),
        (
            "one of two keys",
            {"proofs": {"jkt": "A" * 43}},
            {"cnf": {"jkt": "A" * 43}},
            {"cnf": {"jkt": "A" * 43, "x5t#S256": "A" * 43}},
        ),
    ],
    "cnf_missing": [
        (
            "a Bearer token with profile fapi2",
            {"profile": "fapi2", "proofs": PROOFS},
            {"cnf": PROOFS},
            {},
        ),
    ],
}
ROWS = [(rule, *row) for rule, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(
    ("rule", "declared", "accepted", "refused"),
    [(rule, *rest) for rule, _, *rest in ROWS],
    ids=[f"{rule}: {name}" for rule, name, *_ in ROWS],
)
def test_token_with_one_fault_is_refused(
    rule: str,
    declared: dict[str, Any],
    accepted: dict[str, Any],
    refused: dict[str, Any],
    sign: Sign,
    verify: Verify,
) -> None:
    assert verify(sign(claims(**accepted), header=TYP), **declared)
    with pytest.raises(AccessTokenInvalid) as fault:
        verify(sign(claims(**refused), header=TYP), **declared)
    assert fault.value.rule == rule


def test_undeclared_client_is_refused(sign: Sign, keys: JSONWebKeySet, declare: Declare, now: datetime) -> None:
    token = sign(claims(), header=TYP)
    for clients, rule in ((["app", "other"], None), (["other"], "client_not_allowed"), (["APP"], "client_not_allowed")):
        meant = ResourceServer(replace(api(), clients=frozenset(clients)), declare())
        if rule is None:
            assert verify_access_token(token, keys=keys, resource_server=meant, proofs={}, now=now).client_id == "app"
            continue
        with pytest.raises(AccessTokenInvalid) as fault:
            verify_access_token(token, keys=keys, resource_server=meant, proofs={}, now=now)
        assert fault.value.rule == rule


def test_valid_token_returns_everything_but_the_token(sign: Sign, verify: Verify) -> None:
    token = sign(claims(), header=TYP)
    access_token = verify(token)
    assert (access_token.provider, access_token.issuer, access_token.sub, access_token.client_id) == (
        "default",
        ISSUER,
        "yRq8c3ZbZ0xA",
        "app",
    )
    assert access_token.scopes == {"chart.read", "chart.write"}
    assert (access_token.acr, access_token.auth_time) == ("urn:example:loa:2", datetime.fromtimestamp(NOW - 60, UTC))
    assert access_token.expires_at == datetime.fromtimestamp(NOW + 300, UTC)
    assert "yRq8c3ZbZ0xA" not in repr(access_token)
    assert not any(part in repr(access_token) for part in token.split("."))


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"])
def test_typ_of_an_access_token_is_accepted(typ: str, sign: Sign, verify: Verify) -> None:
    assert verify(sign(claims(), header={"typ": typ}))


@pytest.mark.parametrize("header", [{}, {"typ": "JWT"}, {"typ": "logout+jwt"}, {"typ": ""}, {"typ": "x/at+jwt"}])
def test_other_typ_is_refused(header: dict[str, str], sign: Sign, verify: Verify) -> None:
    with pytest.raises(AccessTokenInvalid) as fault:
        verify(sign(claims(), header=header))
    assert fault.value.rule == "typ_invalid"


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "EdDSA"])
def test_signature_of_each_algorithm_is_verified(alg: str, sign: Sign, verify: Verify) -> None:
    token = sign(claims(), alg=alg, header=TYP)
    assert verify(token)
    signing_input, _, signature = token.rpartition(".")
    turned = ("A" if signature[0] != "A" else "B") + signature[1:]
    with pytest.raises(AccessTokenInvalid) as fault:
        verify(f"{signing_input}.{turned}")
    assert fault.value.rule == "signature_invalid"
    with pytest.raises(AccessTokenInvalid) as fault:
        verify(token, id_token_signed_response_alg=("ES256",) if alg != "ES256" else ("EdDSA",))
    assert fault.value.rule == "alg_not_allowed"


@pytest.mark.parametrize("alg", ["none", "HS256", "nOnE"])
def test_unsupported_algorithm_is_refused(alg: str, sign: Sign, verify: Verify) -> None:
    _, payload, signature = sign(claims(), header=TYP).split(".")
    header = encode_b64url(f'{{"alg":"{alg}","typ":"at+jwt"}}'.encode())
    for end in ("", signature):
        with pytest.raises(AccessTokenInvalid) as fault:
            verify(f"{header}.{payload}.{end}")
        assert fault.value.rule == "alg_not_allowed"


def test_token_without_a_scope_has_no_scopes(sign: Sign, verify: Verify) -> None:
    assert verify(sign(claims(scope="a"), header=TYP)).scopes == {"a"}
    assert verify(sign(claims(scope=ABSENT), header=TYP)).scopes == frozenset()


def test_missing_key_is_key_not_found(sign: Sign, verify: Verify) -> None:
    with pytest.raises(KeyNotFound):
        verify(sign(claims(), header={**TYP, "kid": "another"}))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"acr": ABSENT, "auth_time": ABSENT}, ("", None)),
        ({"acr": ["x"], "auth_time": "soon"}, ("", None)),
        ({"acr": "x" * 256, "auth_time": 0}, ("", None)),
        ({"acr": "x" * 255, "auth_time": ABSENT}, ("x" * 255, None)),
        ({"acr": "x", "auth_time": NOW + LEEWAY + 1}, ("x", None)),
        ({"acr": "x", "auth_time": NOW + LEEWAY}, ("x", datetime.fromtimestamp(NOW + LEEWAY, UTC))),
    ],
)
def test_malformed_assurance_is_unknown(
    sent: dict[str, Any], expected: tuple[str, Any], sign: Sign, verify: Verify
) -> None:
    token = verify(sign(claims(**sent), header=TYP))
    assert (token.acr, token.auth_time) == expected


def test_resource_server_has_the_issuer_and_audience_of_the_token(sign: Sign, declare: Declare) -> None:
    here = ResourceServer(api("a"), declare(name="a"))
    second = ResourceServer(api("b", audience="second"), declare(name="b", client_id="other"))
    introspecting = ResourceServer(
        api("c", method="introspection"), declare(name="c", issuer="https://introspecting.example")
    )
    declared = [here, second, introspecting]
    assert get_resource_server(sign(claims()), declared) == here
    assert get_resource_server(sign(claims(aud="second")), declared) == second
    assert get_resource_server(sign(claims(aud="unknown")), declared) == here
    assert get_resource_server(sign(claims(iss="https://introspecting.example")), declared) == introspecting
    assert get_resource_server("opaque", declared) == introspecting


def test_token_without_a_known_issuer_has_no_resource_server(sign: Sign, declare: Declare) -> None:
    ask_one = ResourceServer(api("a", method="introspection"), declare(name="a"))
    ask_other = ResourceServer(api("b", method="introspection"), declare(name="b", issuer="https://b.example"))
    assert get_resource_server("opaque", [ask_one]) == ask_one
    for declared in ([], [ResourceServer(api(), declare())], [ask_one, ask_other]):
        with pytest.raises(AccessTokenInvalid) as fault:
            get_resource_server("opaque", declared)
        assert fault.value.rule == "token_malformed"
    for iss in ("https://unknown.example", ABSENT, ["x"]):
        with pytest.raises(AccessTokenInvalid) as fault:
            get_resource_server(sign(claims(iss=iss)), [ask_one])
        assert fault.value.rule == "iss_invalid"


SCOPE = st.text(st.sampled_from([chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\']), min_size=1)


@given(st.lists(SCOPE, min_size=1))
def test_scope_list_is_parsed(scopes: list[str]) -> None:
    assert parse_scope(" ".join(scopes)) == frozenset(scopes)


@given(st.text() | st.none() | st.integers() | st.lists(st.text()))
def test_malformed_scope_is_none(value: object) -> None:
    read = parse_scope(value)
    if read is None:
        return
    assert isinstance(value, str)
    assert {scope for scope in value.split(" ") if scope} == read
    assert all(set(map(ord, scope)) <= {0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F)} for scope in read)
