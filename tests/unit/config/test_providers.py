"""Each option is taken as it should be, and refused when one thing about it is wrong."""

from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc.config.claims import parse_claim
from django_phi_oidc.config.providers import is_loopback_http, parse_provider
from django_phi_oidc.errors import DeclarationInvalid
from tests.support.client_keys import create_private_key_pem

pytestmark = pytest.mark.sqlite
PROVIDER = {"issuer": "https://op.example.test", "client_id": "portal", "client_secret": "s3cret"}
PEMS = {kty: create_private_key_pem(kty) for kty in ("RSA", "EC", "OKP")}
WHY = {"purpose": "TREAT", "basis": "the record is shown"}
CLAIM = {"purpose": "TREAT", "basis": "identity check", "retention": "session"}

GOOD_PROVIDERS: dict[str, dict[str, Any]] = {
    "issuer with a path": {"issuer": "https://op.example.test/realms/a"},
    "issuer with a port": {"issuer": "https://op.example.test:8443"},
    "issuer on loopback": {"issuer": "http://127.0.0.1:9000", "allow_loopback_http": True},
    "issuer of 255 characters": {"issuer": "https://op.example.test/" + "a" * 231},
    "one alg": {"id_token_signed_response_alg": ["ES256"]},
    "post": {"token_endpoint_auth_method": "client_secret_post"},
    "max_age zero": {"max_age": 0},
    "leeway zero": {"leeway": 0},
    "leeway as a timedelta": {"leeway": timedelta(seconds=120)},
    "acr values": {"acr_values": ["urn:mace:incommon:iap:silver"]},
    "public subjects": {"subject_type": "public"},
    "pushed requests": {"par": "require"},
    "no pushed requests": {"par": "never"},
    "claims by parameter": {"claims_request": "parameter_null"},
    "signed UserInfo": {"userinfo_signed_response_alg": ["ES256", "RS256"]},
    "plain UserInfo": {"userinfo_signed_response_alg": []},
    "auth_time zero": {"allow_auth_time_zero": True},
    "a label": {"label": "The county"},
    "existing accounts alone": {"provisioning": "existing"},
    "accounts by a code": {"provisioning": "invitation"},
    "resource scopes": {"resource_scopes": {"patient/*.read": WHY, "offline_access": WHY}},
    "no client keys": {"client_keys": []},
}
BAD_PROVIDERS: dict[str, dict[str, Any]] = {
    "issuer without scheme": {"issuer": "op.example.test"},
    "issuer of another scheme": {"issuer": "ftp://op.example.test"},
    "issuer without host": {"issuer": "https:///path"},
    "issuer with a query": {"issuer": "https://op.example.test?tenant=a"},
    "issuer with an empty query": {"issuer": "https://op.example.test?"},
    "issuer with a fragment": {"issuer": "https://op.example.test#a"},
    "issuer with credentials": {"issuer": "https://user:pass@op.example.test"},
    "issuer with a line end": {"issuer": "https://op.example.test\n"},
    "issuer with a space": {"issuer": " https://op.example.test"},
    "issuer that is no URL": {"issuer": "https://[::1"},
    "issuer with a port that is none": {"issuer": "https://op.example.test:99999"},
    "issuer of 256 characters": {"issuer": "https://op.example.test/" + "a" * 232},
    "issuer not in ASCII": {"issuer": "https://öp.example.test"},
    "issuer of no text": {"issuer": 5},
    "empty client_id": {"client_id": ""},
    "empty client_secret": {"client_secret": ""},
    "bytes for client_secret": {"client_secret": b"s3cret"},
    "an option that nobody knows": {"verify_ssl": False},
    "the name as an option": {"name": "other"},
    "alg none": {"id_token_signed_response_alg": ["none"]},
    "alg HS256": {"id_token_signed_response_alg": ["ES256", "HS256"]},
    "no alg": {"id_token_signed_response_alg": []},
    "an alg as text": {"id_token_signed_response_alg": "ES256"},
    "an alg that is no text": {"id_token_signed_response_alg": [5]},
    "algs as a number": {"id_token_signed_response_alg": 5},
    "algs as a dictionary": {"id_token_signed_response_alg": {"ES256": True}},
    "acr values as text": {"acr_values": "silver"},
    "acr values as None": {"acr_values": None},
    "unknown authentication": {"token_endpoint_auth_method": "none"},
    "a list for a choice": {"subject_type": ["public"]},
    "negative max_age": {"max_age": -1},
    "max_age as a boolean": {"max_age": True},
    "max_age as text": {"max_age": "60"},
    "negative leeway": {"leeway": -1},
    "leeway over two minutes": {"leeway": 121},
    "leeway that is no number": {"leeway": float("nan")},
    "leeway without end": {"leeway": float("inf")},
    "leeway as a boolean": {"leeway": True},
    "lifetime of nothing": {"max_access_token_lifetime": 0},
    "lifetime without end": {"max_access_token_lifetime": 1e300},
    "a truthy switch": {"allow_loopback_http": 1},
    "another truthy switch": {"allow_auth_time_zero": 1},
    "an unknown profile": {"profile": "fapi2"},
    "heart with a secret": {"profile": "heart"},
    "unknown way of pushing": {"par": True},
    "unknown way of asking": {"claims_request": "userinfo"},
    "UserInfo by alg none": {"userinfo_signed_response_alg": ["none"]},
    "UserInfo by HS256": {"userinfo_signed_response_alg": ["HS256"]},
    "a label that is no text": {"label": 5},
    "unknown provisioning": {"provisioning": "invite"},
    "keys beside a secret": {"client_keys": [PEMS["EC"]]},
    "a signing alg beside a secret": {"token_endpoint_auth_signing_alg": "ES256"},
    "scopes as a list": {"resource_scopes": ["patient/*.read"]},
    "a scope without purpose": {"resource_scopes": {"patient/*.read": {"basis": "shown"}}},
    "a scope without basis": {"resource_scopes": {"patient/*.read": {**WHY, "basis": " "}}},
    "a scope with a space": {"resource_scopes": {"patient read": WHY}},
    "a scope with a quotation mark": {"resource_scopes": {'patient"': WHY}},
    "a scope with a backslash": {"resource_scopes": {"patient\\": WHY}},
    "a scope not in ASCII": {"resource_scopes": {"pätient": WHY}},
    "a scope without name": {"resource_scopes": {"": WHY}},
    "a scope that is asked for anyway": {"resource_scopes": {"openid": WHY}},
    "a scope with an option that nobody knows": {"resource_scopes": {"patient/*.read": {**WHY, "retention": 1}}},
}
BY_KEY = {
    **{key: value for key, value in PROVIDER.items() if key != "client_secret"},
    "token_endpoint_auth_method": "private_key_jwt",
    "client_keys": [PEMS["RSA"], PEMS["EC"]],
}
HEART = {**BY_KEY, "profile": "heart"}
GOOD_KEYS: dict[str, dict[str, Any]] = {
    "by key": BY_KEY,
    "one key, no list": {**BY_KEY, "client_keys": PEMS["OKP"]},
    "RS256": {**BY_KEY, "token_endpoint_auth_signing_alg": "RS256"},
    "the token endpoint as audience": {**BY_KEY, "client_assertion_audience": "token_endpoint"},
    "heart": HEART,
}
BAD_KEYS: dict[str, dict[str, Any]] = {
    "no key": {**BY_KEY, "client_keys": []},
    "keys left out": {key: value for key, value in BY_KEY.items() if key != "client_keys"},
    "a secret beside keys": {**BY_KEY, "client_secret": "s3cret"},
    "an alg of another key": {**BY_KEY, "token_endpoint_auth_signing_alg": "ES256"},
    "an alg that nobody knows": {**BY_KEY, "token_endpoint_auth_signing_alg": "none"},
    "an unknown audience": {**BY_KEY, "client_assertion_audience": "https://op.example.test"},
    "no PEM": {**BY_KEY, "client_keys": ["s3cret"]},
    "heart that need not revoke": {**HEART, "revocation": "best_effort"},
    "heart that takes auth_time 0": {**HEART, "allow_auth_time_zero": True},
}


@pytest.mark.parametrize("options", GOOD_PROVIDERS.values(), ids=GOOD_PROVIDERS)
def test_parse_provider_of_a_good_declaration_is_accepted(options: dict[str, Any]) -> None:
    provider = parse_provider("default", {**PROVIDER, **options})
    assert provider.name == "default"
    assert provider.issuer == options.get("issuer", PROVIDER["issuer"])


@pytest.mark.parametrize("options", BAD_PROVIDERS.values(), ids=BAD_PROVIDERS)
def test_parse_provider_with_one_thing_wrong_raises_without_the_value(options: dict[str, Any]) -> None:
    parse_provider("default", PROVIDER)
    with pytest.raises(DeclarationInvalid, match=r"PROVIDERS\['default'\]") as refused:
        parse_provider("default", {**PROVIDER, **options})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("raw", GOOD_KEYS.values(), ids=GOOD_KEYS)
def test_parse_provider_of_a_client_with_keys_is_accepted(raw: dict[str, Any]) -> None:
    provider = parse_provider("default", raw)
    assert provider.client_secret == ""
    assert len(provider.client_keys) == (1 if isinstance(raw["client_keys"], str) else len(raw["client_keys"]))
    assert hash(provider) == hash(parse_provider("default", raw))


@pytest.mark.parametrize("raw", BAD_KEYS.values(), ids=BAD_KEYS)
def test_parse_provider_of_a_client_with_one_thing_wrong_raises(raw: dict[str, Any]) -> None:
    with pytest.raises(DeclarationInvalid, match=r"PROVIDERS\['default'\]") as refused:
        parse_provider("default", raw)
    assert "s3cret" not in str(refused.value)


def test_parse_provider_resource_scopes_keep_their_order_and_reasons() -> None:
    raw = {**PROVIDER, "resource_scopes": {"b": WHY, "a": {**WHY, "purpose": "HOPERAT"}}}
    scopes = parse_provider("default", raw).resource_scopes
    assert [(scope.name, scope.purpose, scope.basis) for scope in scopes] == [
        ("b", "TREAT", "the record is shown"),
        ("a", "HOPERAT", "the record is shown"),
    ]


@pytest.mark.parametrize("missing", PROVIDER)
def test_parse_provider_without_what_it_needs_raises(missing: str) -> None:
    raw = {key: value for key, value in PROVIDER.items() if key != missing}
    with pytest.raises(DeclarationInvalid, match=missing):
        parse_provider("default", raw)


@pytest.mark.parametrize("raw", [None, [], "https://op.example.test", 5], ids=repr)
def test_parse_provider_of_no_dictionary_raises(raw: Any) -> None:
    with pytest.raises(DeclarationInvalid, match="dictionary"):
        parse_provider("default", raw)


PARAMETERS = {"prompt": "login consent", "ui_locales": "de fr", "login_hint": "@clinic.example", "kc_idp_hint": "card"}


def test_authorization_parameters_keep_their_order() -> None:
    provider = parse_provider("default", {**PROVIDER, "authorization_parameters": PARAMETERS})
    assert provider.authorization_parameters == tuple(PARAMETERS.items())
    assert hash(provider)


@pytest.mark.parametrize(
    "name",
    [
        *("client_id", "client_secret", "client_assertion", "redirect_uri", "response_type", "response_mode", "scope"),
        *("state", "nonce", "code_challenge", "code_challenge_method", "request", "request_uri", "registration"),
        *("acr_values", "max_age", "claims", "id_token_hint", "", "two words", "a&b", "a=b", 5),
    ],
)
def test_authorization_parameter_of_the_protocol_or_without_a_name_is_refused(name: Any) -> None:
    with pytest.raises(DeclarationInvalid, match=r"PROVIDERS\['default'\]\['authorization_parameters'\]"):
        parse_provider("default", {**PROVIDER, "authorization_parameters": {**PARAMETERS, name: "x"}})


@pytest.mark.parametrize("value", ["", "a\nb", 5, None, ["login"]], ids=repr)
def test_authorization_parameter_with_a_wrong_value_is_refused_without_it(value: Any) -> None:
    with pytest.raises(DeclarationInvalid, match=r"\['authorization_parameters'\]\['prompt'\]"):
        parse_provider("default", {**PROVIDER, "authorization_parameters": {"prompt": value}})


@pytest.mark.parametrize(("value", "seconds"), [(60, 60), (timedelta(minutes=5), 300), (None, None)])
def test_max_age_is_whole_seconds(value: Any, seconds: int | None) -> None:
    assert parse_provider("default", {**PROVIDER, "max_age": value}).max_age == seconds
    with pytest.raises(DeclarationInvalid, match="max_age"):
        parse_provider("default", {**PROVIDER, "max_age": timedelta(milliseconds=1500)})


def test_parse_provider_shows_no_secret() -> None:
    assert "s3cret" not in repr(parse_provider("default", PROVIDER))


@pytest.mark.parametrize(
    "name",
    ["", 5, None, "a" * 65, "a\nb", "a\n", "a/b", ".", "..", ".a", "a b", "a%2Fb", "a?b", "a#b", "ü", "a;b"],
    ids=repr,
)
def test_parse_provider_of_a_bad_name_raises(name: Any) -> None:
    assert parse_provider("a" * 64, PROVIDER).name == "a" * 64
    assert parse_provider("Region-2_north.example", PROVIDER).name == "Region-2_north.example"
    with pytest.raises(DeclarationInvalid, match="name"):
        parse_provider(name, PROVIDER)


GOOD_CLAIMS: dict[str, tuple[dict[str, Any], Any]] = {
    "of the session": ({}, "session"),
    "for a day": ({"retention": timedelta(days=1)}, timedelta(days=1)),
    "for an hour in seconds": ({"retention": 3600}, timedelta(hours=1)),
    "never stored": ({"retention": None}, None),
    "essential": ({"essential": True}, "session"),
    "two members": ({"members": ("postal_code", "country")}, "session"),
    "members as JSON has them": ({"members": ["postal_code"]}, "session"),
}
BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "no purpose": {"purpose": ""},
    "a blank purpose": {"purpose": "  "},
    "a purpose that the column can't hold": {"purpose": "T" * 33},
    "a purpose that is no text": {"purpose": ["TREAT"]},
    "no basis": {"basis": ""},
    "a basis that is no text": {"basis": None},
    "retention of nothing": {"retention": timedelta(0)},
    "negative retention": {"retention": timedelta(days=-1)},
    "retention for ever": {"retention": timedelta.max},
    "retention without end": {"retention": float("inf")},
    "retention as another word": {"retention": "forever"},
    "retention as a boolean": {"retention": True},
    "retention as a list": {"retention": ["session"]},
    "essential as text": {"essential": "yes"},
    "an option that nobody knows": {"encrypt": False},
    "members as text": {"members": "country"},
    "no members": {"members": []},
    "members as None": {"members": None},
    "a member that is no text": {"members": ["country", 5]},
    "a member without name": {"members": [""]},
    "a member that no name can be": {"members": ["coun\ntry"]},
    "a member twice": {"members": ["country", "region", "country"]},
    "members as a dictionary": {"members": {"country": True}},
}


@pytest.mark.parametrize(("options", "retention"), GOOD_CLAIMS.values(), ids=GOOD_CLAIMS)
def test_parse_claim_of_a_good_declaration_is_accepted(options: dict[str, Any], retention: Any) -> None:
    claim = parse_claim("birthdate", {**CLAIM, **options})
    assert (claim.name, claim.retention, claim.essential) == ("birthdate", retention, options.get("essential", False))
    assert claim.members == tuple(options.get("members", ()))


@pytest.mark.parametrize("options", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
def test_parse_claim_with_one_thing_wrong_raises(options: dict[str, Any]) -> None:
    parse_claim("birthdate", CLAIM)
    with pytest.raises(DeclarationInvalid, match=r"CLAIMS\['birthdate'\]"):
        parse_claim("birthdate", {**CLAIM, **options})


@pytest.mark.parametrize("missing", CLAIM)
def test_parse_claim_without_purpose_basis_or_retention_raises(missing: str) -> None:
    raw = {key: value for key, value in CLAIM.items() if key != missing}
    with pytest.raises(DeclarationInvalid, match=missing):
        parse_claim("birthdate", raw)


@pytest.mark.parametrize("name", ["_claim_names", "_claim_sources"])
def test_parse_claim_of_what_stands_in_for_claims_elsewhere_raises(name: str) -> None:
    assert parse_claim(name.removeprefix("_"), CLAIM).name == name.removeprefix("_")
    with pytest.raises(DeclarationInvalid, match="distributed and aggregated"):
        parse_claim(name, CLAIM)


@pytest.mark.parametrize("name", ["", 5, None, "a" * 256, "a\x00b"], ids=repr)
def test_parse_claim_of_a_bad_name_raises(name: Any) -> None:
    assert parse_claim("a" * 255, CLAIM).name == "a" * 255
    with pytest.raises(DeclarationInvalid, match="name"):
        parse_claim(name, CLAIM)


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("http://127.0.0.1:9000", True),
        ("http://127.255.0.1", True),
        ("http://[::1]:9000/path", True),
        ("http://localhost", True),
        ("http://LOCALHOST:80", True),
        ("https://127.0.0.1", False),
        ("http://127.0.0.1.example.test", False),
        ("http://127.0.0.1@op.example.test", False),
        ("http://localhost.example.test", False),
        ("http://128.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://10.0.0.1", False),
        ("http://127.1", False),
        ("http://2130706433", False),
        ("http://[::1", False),
        ("http://", False),
        ("", False),
    ],
)
def test_is_loopback_http_says_so_of_http_on_loopback_alone(url: str, *, answer: bool) -> None:
    assert is_loopback_http(url) is answer
