"""A provider of `PROVIDERS`: valid and invalid declarations."""

from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc.config.loopback import is_loopback_http
from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.errors import DeclarationInvalid
from tests.support.client_keys import create_private_key_pem
from tests.support.tls import create_certificate_pem

pytestmark = pytest.mark.sqlite
PROVIDER = {"issuer": "https://op.example.test", "client_id": "portal", "client_secret": "s3cret"}
PEMS = {kty: create_private_key_pem(kty) for kty in ("RSA", "EC", "OKP")}
CERTIFIED = {"key": PEMS["RSA"], "certificate": create_certificate_pem(PEMS["RSA"])}
WHY = {"purpose": "TREAT", "basis": "the record is shown"}


ENCRYPTED = {
    "client_keys": {"key": PEMS["EC"], "use": "enc"},
    "id_token_encrypted_response_alg": ["ECDH-ES", "ECDH-ES+A128KW"],
}
VALID_PROVIDERS: dict[str, dict[str, Any]] = {
    "encrypted ID Tokens": ENCRYPTED,
    "a key to decrypt, before it is used": {"client_keys": ENCRYPTED["client_keys"]},
    "encrypted UserInfo": {
        "client_keys": ENCRYPTED["client_keys"],
        "userinfo_signed_response_alg": ["ES512"],
        "userinfo_encrypted_response_alg": ["ECDH-ES+A256KW"],
        "userinfo_encrypted_response_enc": ["A128GCM"],
    },
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
    "metadata elsewhere": {"metadata_url": "https://meta.example.test/.well-known/wallet-openid-configuration?a=b"},
    "metadata on loopback": {"metadata_url": "http://127.0.0.1:9000/x", "allow_loopback_http": True},
    "s6 endpoint on loopback": {
        "metadata_overrides": {"token_endpoint": "http://127.0.0.1:9000/token"},
        "allow_loopback_http": True,
    },
    "metadata of another issuer": {"metadata_url": "https://a.test/x", "metadata_issuer": "https://a.test/fhir"},
    "accepted acr values": {"acr_values": ["preferred"], "acr_accepted": ["a", "b"]},
    "accepted acr values alone": {"acr_accepted": ["a"]},
    "vectors": {"vtr": ["P9.Cp.Cd", "P9.Cm"], "vtm": "https://op.example.test/trustmark"},
    "a trust mark alone": {"vtm": "https://op.example.test/trustmark"},
    "required methods": {"amr_required": ["mfa", "N3_SMARTCARD"]},
    "a rule of the provider": {"provider_requires_mfa": True},
    "a resource": {"resource": "https://api.example.test/fhir?tenant=1"},
    "a resource that is a URN": {"resource": "urn:example:records"},
}
INVALID_PROVIDERS: dict[str, dict[str, Any]] = {
    "metadata over http": {"metadata_url": "http://meta.example.test/x"},
    "metadata at a path": {"metadata_url": "/.well-known/x"},
    "metadata with a fragment": {"metadata_url": "https://meta.example.test/x#a"},
    "metadata with credentials": {"metadata_url": "https://user:pass@meta.example.test/x"},
    "metadata as None": {"metadata_url": None},
    "another issuer at the usual place": {"metadata_issuer": "https://a.test/fhir"},
    "another issuer with a query": {"metadata_url": "https://a.test/x", "metadata_issuer": "https://a.test?b"},
    "accepted acr values with a blank": {"acr_accepted": ["a b"]},
    "accepted acr values as a string": {"acr_accepted": "a"},
    "vectors without a trust mark": {"vtr": ["P9.Cp.Cd"]},
    "a vector with a comma": {"vtr": ["P9,Cp"], "vtm": "https://op.example.test/trustmark"},
    "an empty vector": {"vtr": [""], "vtm": "https://op.example.test/trustmark"},
    "vectors as a string": {"vtr": "P9.Cp", "vtm": "https://op.example.test/trustmark"},
    "a trust mark over http": {"vtm": "http://op.example.test/trustmark"},
    "a trust mark that is no URL": {"vtm": "trustmark"},
    "methods as a string": {"amr_required": "mfa"},
    "a method with a blank": {"amr_required": ["two factors"]},
    "a truthy rule of the provider": {"provider_requires_mfa": 1},
    "a relative resource": {"resource": "/fhir"},
    "a resource with a fragment": {"resource": "https://api.example.test/#a"},
    "a resource with a blank": {"resource": "https://api.example.test/a b"},
    "a list of resources": {"resource": ["https://api.example.test"]},
    "vtr as a parameter": {"authorization_parameters": {"vtr": '["P9"]'}},
    "resource as a parameter": {"authorization_parameters": {"resource": "https://api.example.test"}},
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
    "issuer with an invalid port": {"issuer": "https://op.example.test:99999"},
    "issuer of 256 characters": {"issuer": "https://op.example.test/" + "a" * 232},
    "issuer not in ASCII": {"issuer": "https://öp.example.test"},
    "issuer that is no string": {"issuer": 5},
    "empty client_id": {"client_id": ""},
    "empty client_secret": {"client_secret": ""},
    "bytes for client_secret": {"client_secret": b"s3cret"},
    "an unknown option": {"verify_ssl": False},
    "the name as an option": {"name": "other"},
    "alg none": {"id_token_signed_response_alg": ["none"]},
    "alg HS256": {"id_token_signed_response_alg": ["ES256", "HS256"]},
    "no alg": {"id_token_signed_response_alg": []},
    "an alg as a string": {"id_token_signed_response_alg": "ES256"},
    "an alg that is no string": {"id_token_signed_response_alg": [5]},
    "algs as a number": {"id_token_signed_response_alg": 5},
    "algs as a dictionary": {"id_token_signed_response_alg": {"ES256": True}},
    "acr values as a string": {"acr_values": "silver"},
    "acr values as None": {"acr_values": None},
    "unknown authentication": {"token_endpoint_auth_method": "none"},
    "a list for a choice": {"subject_type": ["public"]},
    "negative max_age": {"max_age": -1},
    "max_age as a boolean": {"max_age": True},
    "max_age as a string": {"max_age": "60"},
    "negative leeway": {"leeway": -1},
    "leeway over two minutes": {"leeway": 121},
    "leeway that is no number": {"leeway": float("nan")},
    "infinite leeway": {"leeway": float("inf")},
    "leeway as a boolean": {"leeway": True},
    "zero lifetime": {"max_access_token_lifetime": 0},
    "infinite lifetime": {"max_access_token_lifetime": 1e300},
    "s6 endpoint on loopback, which is not allowed": {
        "metadata_overrides": {"token_endpoint": "http://127.0.0.1:9000/token"},
    },
    "s6 the same in capital letters": {"metadata_overrides": {"jwks_uri": "HTTP://localhost/keys"}},
    "s6 metadata on loopback, which is not allowed": {"metadata_url": "http://127.0.0.1:9000/x"},
    "a truthy switch": {"allow_loopback_http": 1},
    "another truthy switch": {"allow_auth_time_zero": 1},
    "an unknown profile": {"profile": "fapi1"},
    "heart with a secret": {"profile": "heart"},
    "fapi2 with a secret": {
        **{"profile": "fapi2", "par": "require", "dpop": "require"},
        "id_token_signed_response_alg": ["PS256"],
    },
    "unknown dpop": {"dpop": True},
    "dpop_jkt as a further parameter": {"authorization_parameters": {"dpop_jkt": "x"}},
    "par that is no choice": {"par": True},
    "unknown claims_request": {"claims_request": "userinfo"},
    "UserInfo by alg none": {"userinfo_signed_response_alg": ["none"]},
    "UserInfo by HS256": {"userinfo_signed_response_alg": ["HS256"]},
    "a label that is no string": {"label": 5},
    "unknown provisioning": {"provisioning": "invite"},
    "keys with a secret": {"client_keys": [PEMS["EC"]]},
    "encryption without a key": {"id_token_encrypted_response_alg": ["ECDH-ES"]},
    "encryption with a key of another type": {**ENCRYPTED, "id_token_encrypted_response_alg": ["RSA-OAEP-256"]},
    "encryption with a key to sign": {
        **{"token_endpoint_auth_method": "private_key_jwt", "client_secret": "", "client_keys": PEMS["EC"]},
        "id_token_encrypted_response_alg": ["ECDH-ES"],
    },
    "RSA-OAEP with SHA-1": {**ENCRYPTED, "id_token_encrypted_response_alg": ["RSA-OAEP"]},
    "dir": {**ENCRYPTED, "id_token_encrypted_response_alg": ["dir"]},
    "A128CBC-HS256": {**ENCRYPTED, "id_token_encrypted_response_enc": ["A128CBC-HS256"]},
    "no content encryption": {**ENCRYPTED, "id_token_encrypted_response_enc": []},
    "encrypted UserInfo without a signature": {**ENCRYPTED, "userinfo_encrypted_response_alg": ["ECDH-ES"]},
    "a signing alg with a secret": {"token_endpoint_auth_signing_alg": "ES256"},
    "scopes as a list": {"resource_scopes": ["patient/*.read"]},
    "a scope without purpose": {"resource_scopes": {"patient/*.read": {"basis": "shown"}}},
    "a scope without basis": {"resource_scopes": {"patient/*.read": {**WHY, "basis": " "}}},
    "a scope with a space": {"resource_scopes": {"patient read": WHY}},
    "a scope with a quotation mark": {"resource_scopes": {'patient"': WHY}},
    "a scope with a backslash": {"resource_scopes": {"patient\\": WHY}},
    "a scope not in ASCII": {"resource_scopes": {"pätient": WHY}},
    "a scope without name": {"resource_scopes": {"": WHY}},
    "the scope openid": {"resource_scopes": {"openid": WHY}},
    "a scope with an unknown option": {"resource_scopes": {"patient/*.read": {**WHY, "retention": 1}}},
}
BY_CERTIFICATE: dict[str, Any] = {
    "client_secret": "",
    "token_endpoint_auth_method": "tls_client_auth",
    "client_certificate": "/etc/portal/client.pem",
}
VALID_PROVIDERS |= {
    "tls_client_auth": BY_CERTIFICATE,
    "self_signed_tls_client_auth": {**BY_CERTIFICATE, "token_endpoint_auth_method": "self_signed_tls_client_auth"},
    "certificate key": {**BY_CERTIFICATE, "client_certificate_key": "/etc/portal/client.key"},
    "a certificate with a secret": {"client_certificate": "/etc/portal/client.pem"},
    "the next self-signed certificate": {
        **BY_CERTIFICATE,
        "token_endpoint_auth_method": "self_signed_tls_client_auth",
        "client_keys": [CERTIFIED],
    },
    "signed requests": {"request_object_signing_alg": "ES256", "client_keys": [PEMS["EC"]]},
    "signed requests with tls_client_auth": {
        **BY_CERTIFICATE,
        "request_object_signing_alg": "PS256",
        "client_keys": [CERTIFIED],
        "client_key_header": "x5c",
    },
}
INVALID_PROVIDERS |= {
    "tls_client_auth without a certificate": {**BY_CERTIFICATE, "client_certificate": None},
    "tls_client_auth with a secret": {**BY_CERTIFICATE, "client_secret": "s3cret"},
    "a relative path": {**BY_CERTIFICATE, "client_certificate": "client.pem"},
    "PEM for a path": {**BY_CERTIFICATE, "client_certificate": "-----BEGIN CERTIFICATE-----"},
    "a certificate key alone": {"client_certificate_key": "/etc/portal/client.key"},
    "keys with tls_client_auth": {**BY_CERTIFICATE, "client_keys": [CERTIFIED]},
    "signed requests without a key": {"request_object_signing_alg": "ES256"},
    "signed requests by an alg of another key": {"request_object_signing_alg": "PS256", "client_keys": [PEMS["EC"]]},
    "unsigned requests": {"request_object_signing_alg": "none", "client_keys": [PEMS["EC"]]},
    "UDAP with a secret": {"udap": True},
    "a key header without a key": {"client_key_header": "x5c"},
}
BY_KEY = {
    **{key: value for key, value in PROVIDER.items() if key != "client_secret"},
    "token_endpoint_auth_method": "private_key_jwt",
    "client_keys": [PEMS["RSA"], PEMS["EC"]],
}
HEART = {**BY_KEY, "profile": "heart"}
FAPI2 = {
    **BY_KEY,
    "profile": "fapi2",
    "par": "require",
    "dpop": "require",
    "id_token_signed_response_alg": ["PS256", "ES256", "EdDSA", "Ed25519"],
}
VALID_KEYS: dict[str, dict[str, Any]] = {
    "by key": BY_KEY,
    "one key, no list": {**BY_KEY, "client_keys": PEMS["OKP"]},
    "RS256": {**BY_KEY, "token_endpoint_auth_signing_alg": "RS256"},
    "the token endpoint as audience": {**BY_KEY, "client_assertion_audience": "token_endpoint"},
    "the called endpoint as audience": {**BY_KEY, "client_assertion_audience": "endpoint"},
    "heart": HEART,
    "x5t#S256": {**BY_KEY, "client_keys": [CERTIFIED], "client_key_header": "x5t#S256"},
    "x5c": {**BY_KEY, "client_keys": [CERTIFIED], "client_key_header": "x5c"},
    "UDAP": {**BY_KEY, "client_keys": [CERTIFIED], "client_key_header": "x5c", "udap": True},
    "fapi2": FAPI2,
    "fapi2 with a client certificate": {**FAPI2, "dpop": "never", "client_certificate": "/etc/portal/client.pem"},
    "fapi2 with a client certificate for a key": {
        **{name: value for name, value in FAPI2.items() if name != "client_keys"},
        **{"token_endpoint_auth_method": "tls_client_auth", "client_certificate": "/etc/portal/client.pem"},
        **{"dpop": "never", "client_keys": []},
    },
    "signed requests with a further parameter": {
        **BY_KEY,
        **{"request_object_signing_alg": "PS256", "authorization_parameters": {"launch": "x"}},
    },
    "the parameter aud of SMART": {**BY_KEY, "authorization_parameters": {"aud": "https://fhir.example.test"}},
    "fapi2 with signed requests": {**FAPI2, "request_object_signing_alg": "PS256"},
    "fapi2 with metadata elsewhere": {**FAPI2, "metadata_url": "https://op.example.test/m"},
    "fapi2 with signed UserInfo": {**FAPI2, "userinfo_signed_response_alg": ["ES256"]},
    "fapi2 with Ed25519": {**FAPI2, "client_keys": PEMS["OKP"], "token_endpoint_auth_signing_alg": "EdDSA"},
}
INVALID_KEYS: dict[str, dict[str, Any]] = {
    "no key": {**BY_KEY, "client_keys": []},
    "keys left out": {key: value for key, value in BY_KEY.items() if key != "client_keys"},
    "a secret with keys": {**BY_KEY, "client_secret": "s3cret"},
    "an alg of another key": {**BY_KEY, "token_endpoint_auth_signing_alg": "ES256"},
    "an unknown alg": {**BY_KEY, "token_endpoint_auth_signing_alg": "none"},
    "an unknown audience": {**BY_KEY, "client_assertion_audience": "https://op.example.test"},
    "UDAP without x5c": {**BY_KEY, "client_keys": [CERTIFIED], "udap": True},
    "x5c without a certificate": {**BY_KEY, "client_key_header": "x5c"},
    "x5t#S256 with the certificate of another key": {
        **BY_KEY,
        "client_keys": [PEMS["RSA"], {"key": PEMS["EC"], "certificate": create_certificate_pem(PEMS["EC"])}],
        "client_key_header": "x5t#S256",
    },
    "x5t, which is SHA-1": {**BY_KEY, "client_keys": [CERTIFIED], "client_key_header": "x5t"},
    "no PEM": {**BY_KEY, "client_keys": ["s3cret"]},
    "heart without required revocation": {**HEART, "revocation": "best_effort"},
    "heart with allow_auth_time_zero": {**HEART, "allow_auth_time_zero": True},
    "fapi2 without required PAR": {**FAPI2, "par": "auto"},
    "fapi2 without required DPoP": {**FAPI2, "dpop": "auto"},
    "fapi2 with RS256": {**FAPI2, "id_token_signed_response_alg": ["PS256", "RS256"]},
    "fapi2 with UserInfo by RS256": {**FAPI2, "userinfo_signed_response_alg": ["RS256"]},
    "fapi2 with assertions by RS256": {**FAPI2, "token_endpoint_auth_signing_alg": "RS256"},
    "fapi2 with the token endpoint as audience": {**FAPI2, "client_assertion_audience": "token_endpoint"},
    "signed requests with the claim aud as a parameter": {
        **BY_KEY,
        **{"request_object_signing_alg": "PS256", "authorization_parameters": {"aud": "https://fhir.example.test"}},
    },
    "signed requests with the claim sub as a parameter": {
        **BY_KEY,
        **{"request_object_signing_alg": "PS256", "authorization_parameters": {"sub": "portal"}},
    },
    "fapi2 with requests by RS256": {**FAPI2, "request_object_signing_alg": "RS256"},
    "fapi2 with requests by PS512": {**FAPI2, "request_object_signing_alg": "PS512"},
    "fapi2 with metadata of another issuer": {
        **FAPI2,
        **{"metadata_url": "https://op.example.test/m", "metadata_issuer": "https://other.example.test"},
    },
    "fapi2 with an override": {**FAPI2, "metadata_overrides": {"token_endpoint": "https://op.example.test/t"}},
}


@pytest.mark.parametrize("options", VALID_PROVIDERS.values(), ids=VALID_PROVIDERS)
def test_valid_provider_is_parsed(options: dict[str, Any]) -> None:
    provider = parse_provider("default", {**PROVIDER, **options})
    assert provider.name == "default"
    assert provider.issuer == options.get("issuer", PROVIDER["issuer"])


@pytest.mark.parametrize("options", INVALID_PROVIDERS.values(), ids=INVALID_PROVIDERS)
def test_wrong_provider_is_refused_without_the_value(options: dict[str, Any]) -> None:
    parse_provider("default", PROVIDER)
    with pytest.raises(DeclarationInvalid, match=r"PROVIDERS\['default'\]") as refused:
        parse_provider("default", {**PROVIDER, **options})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("raw", VALID_KEYS.values(), ids=VALID_KEYS)
def test_valid_provider_with_client_keys_is_parsed(raw: dict[str, Any]) -> None:
    provider = parse_provider("default", raw)
    assert provider.client_secret == ""
    assert len(provider.client_keys) == (1 if isinstance(raw["client_keys"], str) else len(raw["client_keys"]))
    assert hash(provider) == hash(parse_provider("default", raw))


@pytest.mark.parametrize("raw", INVALID_KEYS.values(), ids=INVALID_KEYS)
def test_wrong_provider_with_client_keys_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(DeclarationInvalid, match=r"PROVIDERS\['default'\]") as refused:
        parse_provider("default", raw)
    assert "s3cret" not in str(refused.value)


def test_resource_scopes_keep_their_order_and_reasons() -> None:
    raw = {**PROVIDER, "resource_scopes": {"b": WHY, "a": {**WHY, "purpose": "HOPERAT"}}}
    scopes = parse_provider("default", raw).resource_scopes
    assert [(scope.name, scope.purpose, scope.basis) for scope in scopes] == [
        ("b", "TREAT", "the record is shown"),
        ("a", "HOPERAT", "the record is shown"),
    ]


@pytest.mark.parametrize("missing", PROVIDER)
def test_provider_without_a_required_option_is_refused(missing: str) -> None:
    raw = {key: value for key, value in PROVIDER.items() if key != missing}
    with pytest.raises(DeclarationInvalid, match=missing):
        parse_provider("default", raw)


@pytest.mark.parametrize("raw", [None, [], "https://op.example.test", 5], ids=repr)
def test_provider_that_is_no_dictionary_is_refused(raw: Any) -> None:
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


def test_b4_end_session_parameters_keep_their_order() -> None:
    parameters = {"logout_uri": "https://rp.example/oidc/logged-out/", "ui_locales": "de fr"}
    provider = parse_provider("default", {**PROVIDER, "end_session_parameters": parameters})
    assert provider.end_session_parameters == tuple(parameters.items())


@pytest.mark.parametrize(
    "name", ["client_id", "id_token_hint", "logout_hint", "post_logout_redirect_uri", "state", "", "a&b", 5]
)
def test_b4_end_session_parameter_of_the_protocol_is_refused(name: Any) -> None:
    with pytest.raises(DeclarationInvalid, match=r"PROVIDERS\['default'\]\['end_session_parameters'\]"):
        parse_provider("default", {**PROVIDER, "end_session_parameters": {name: "x"}})


@pytest.mark.parametrize("value", ["minimal", "always", "never"])
def test_b4_id_token_hint_is_one_of_three(value: str) -> None:
    assert parse_provider("default", {**PROVIDER, "id_token_hint": value}).id_token_hint == value
    with pytest.raises(DeclarationInvalid, match="id_token_hint"):
        parse_provider("default", {**PROVIDER, "id_token_hint": f"{value}!"})


@pytest.mark.parametrize(("value", "seconds"), [(60, 60), (timedelta(minutes=5), 300), (None, None)])
def test_max_age_is_whole_seconds(value: Any, seconds: int | None) -> None:
    assert parse_provider("default", {**PROVIDER, "max_age": value}).max_age == seconds
    with pytest.raises(DeclarationInvalid, match="max_age"):
        parse_provider("default", {**PROVIDER, "max_age": timedelta(milliseconds=1500)})


def test_repr_contains_no_secret() -> None:
    assert "s3cret" not in repr(parse_provider("default", PROVIDER))


@pytest.mark.parametrize(
    "name",
    ["", 5, None, "a" * 65, "a\nb", "a\n", "a/b", ".", "..", ".a", "a b", "a%2Fb", "a?b", "a#b", "ü", "a;b"],
    ids=repr,
)
def test_invalid_provider_name_is_refused(name: Any) -> None:
    assert parse_provider("a" * 64, PROVIDER).name == "a" * 64
    assert parse_provider("Region-2_north.example", PROVIDER).name == "Region-2_north.example"
    with pytest.raises(DeclarationInvalid, match="name"):
        parse_provider(name, PROVIDER)


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
def test_is_loopback_http(url: str, *, answer: bool) -> None:
    assert is_loopback_http(url) is answer
