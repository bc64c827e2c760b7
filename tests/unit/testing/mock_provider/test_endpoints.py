"""Discovery, key set, UserInfo, revocation, introspection and subjects."""

import json
from dataclasses import replace
from datetime import timedelta

import jwt
import pytest
from jwcrypto import jwe, jwk

from django_phi_oidc.config.encryption_algorithms import KTY_BY_KEY_MANAGEMENT_ALG
from django_phi_oidc.testing.mock_provider import Account, Client, DemoProvider
from django_phi_oidc.testing.mock_provider.client_jwks import get_encryption_key


def test_discovery_names_the_issuer_and_existing_endpoints(op, rp):
    answer = rp.send("GET", "/.well-known/openid-configuration")
    metadata = answer.json
    assert answer.headers["content-type"] == "application/json"
    assert metadata["issuer"] == op.issuer
    assert metadata["subject_types_supported"] == ["pairwise"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert metadata["acr_values_supported"] == ["urn:example:loa:2", "urn:example:loa:3"]
    assert {"birthdate", "address", "sub"} <= set(metadata["claims_supported"])
    for name in [name for name in metadata if name.endswith(("_endpoint", "jwks_uri"))]:
        path = metadata[name].removeprefix(op.issuer)
        assert rp.send("POST" if name.startswith(("token", "revoc", "intro")) else "GET", path).status != 404, name


def test_jwks_contains_only_public_keys_of_four_algorithms(rp):
    keys = rp.send("GET", "/jwks").json["keys"]
    assert {key["alg"] for key in keys} == {"PS256", "ES256", "EdDSA", "RS256"}
    assert len({key["kid"] for key in keys}) == 4
    assert all(key["use"] == "sig" and not {"d", "p", "q", "k"} & set(key) for key in keys)


def test_rotate_keys_publishes_old_keys_until_they_are_withdrawn(op, rp):
    old = jwt.get_unverified_header(rp.tokens()["id_token"])["kid"]
    op.rotate_keys()
    new = jwt.get_unverified_header(rp.tokens()["id_token"])["kid"]
    kids = [key["kid"] for key in rp.send("GET", "/jwks").json["keys"]]
    assert old != new
    assert {old, new} <= set(kids)
    op.rotate_keys(withdraw_old_keys=True)
    assert not {old, new} & {key["kid"] for key in rp.send("GET", "/jwks").json["keys"]}


# UserInfo. Spec: OIDC Core 5.3


def userinfo(rp, token, method="GET"):
    return rp.send(method, "/userinfo", headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_userinfo_returns_only_the_granted_claims(op, rp, method):
    claims = json.dumps({"userinfo": {"birthdate": None, "sub": None, "iss": None}, "id_token": {"gender": None}})
    answer = userinfo(rp, rp.tokens(scope="openid address", claims=claims)["access_token"], method)
    assert answer.status == 200
    assert set(answer.json) == {"sub", "address", "birthdate"}
    assert answer.json["sub"] == op.get_subject("amina", "portal")
    assert answer.headers["cache-control"] == "no-store"


def test_userinfo_returns_the_claims_of_the_scope(rp):
    claims = userinfo(rp, rp.tokens(scope="openid profile email phone")["access_token"]).json
    assert claims["birthdate"] == "1984-03-09"
    assert claims["email_verified"] is True
    assert claims["phone_number"].startswith("+46")
    assert "address" not in claims


def test_userinfo_without_an_active_access_token_in_the_header_is_refused(op, rp, clock):
    tokens = rp.tokens()
    assert userinfo(rp, tokens["access_token"]).status == 200
    assert userinfo(rp, tokens["refresh_token"]).status == 401
    assert 'error="invalid_token"' in userinfo(rp, "nonsense").headers["www-authenticate"]
    assert rp.send("GET", "/userinfo").headers["www-authenticate"] == 'Bearer realm="demo provider"'
    in_url = rp.send("GET", f"/userinfo?access_token={tokens['access_token']}")
    in_form = rp.send("POST", "/userinfo", {"access_token": tokens["access_token"]})
    assert (in_url.status, in_form.status) == (400, 400)
    clock.ahead += timedelta(minutes=10)
    assert userinfo(rp, tokens["access_token"]).status == 401


@pytest.mark.parametrize("alg", ["PS256", "ES256", "EdDSA", "RS256"])
def test_userinfo_is_signed_if_the_client_registered_it(op, rp, alg):
    op.register_client(Client("portal", rp.secret, [rp.redirect_uri], userinfo_signed_response_alg=alg))
    answer = userinfo(rp, rp.tokens(scope="openid address")["access_token"])
    assert (answer.status, answer.headers["content-type"]) == (200, "application/jwt")
    assert answer.headers["cache-control"] == "no-store"
    keys = jwt.PyJWKSet.from_dict(rp.send("GET", "/jwks").json)
    token = answer.body.decode()
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=[alg], audience="portal", issuer=op.issuer)
    assert set(claims) == {"iss", "aud", "sub", "address"}
    assert claims["sub"] == op.get_subject("amina", "portal")


@pytest.mark.parametrize(("alg", "kty"), KTY_BY_KEY_MANAGEMENT_ALG.items())
def test_tokens_are_encrypted_if_the_client_registered_it(op, rp, alg, kty):
    key = jwk.JWK.generate(kty=kty, use="enc", kid="k", **({"size": 2048} if kty == "RSA" else {"crv": "P-384"}))
    jwks = {"keys": [{"kty": kty, "use": "sig"}, key.export_public(as_dict=True)]}
    encryption = {f"{name}_encrypted_response_alg": alg for name in ("id_token", "userinfo")}
    registered = {"jwks": jwks, "userinfo_signed_response_alg": "ES256", **encryption}
    op.register_client(Client("portal", rp.secret, [rp.redirect_uri], **registered))
    tokens = rp.tokens(scope="openid address")
    for token in (tokens["id_token"], userinfo(rp, tokens["access_token"]).body.decode()):
        container = jwe.JWE(algs=[alg, "A256GCM"])
        container.deserialize(token, key)
        header = {name: value for name, value in container.jose_header.items() if name != "epk"}
        assert header == {"alg": alg, "enc": "A256GCM", "cty": "JWT", "kid": "k"}
        assert jwt.decode(container.payload.decode(), options={"verify_signature": False})["iss"] == op.issuer


@pytest.mark.parametrize("key", [{"kty": "RSA", "use": "enc"}, {"kty": "EC", "use": "sig"}, {"kty": "EC"}])
def test_encryption_to_a_client_without_a_key_is_an_error(rp, key):
    client = Client("portal", rp.secret, [rp.redirect_uri], jwks={"keys": [key]})
    assert get_encryption_key(replace(client, jwks={"keys": [{"kty": "EC", "use": "enc"}]}), "ECDH-ES")
    with pytest.raises(ValueError, match="no key"):
        get_encryption_key(client, "ECDH-ES")


def test_userinfo_error_is_not_signed(op, rp):
    op.register_client(Client("portal", rp.secret, [rp.redirect_uri], userinfo_signed_response_alg="ES256"))
    answer = userinfo(rp, "nonsense")
    assert (answer.status, answer.body) == (401, b"")


# Revocation. Spec: RFC 7009


def revoke(rp, token, **more):
    return rp.send("POST", "/revoke", {"token": token, **more}, rp.basic)


def test_revoking_a_refresh_token_revokes_all_tokens_of_the_grant(op, rp):
    first, second = rp.tokens(), rp.tokens()
    assert revoke(rp, first["refresh_token"], token_type_hint="access_token").status == 200
    assert not op.is_token_active(first["access_token"])
    assert not op.is_token_active(first["refresh_token"])
    assert op.is_token_active(second["access_token"])


def test_revoking_an_access_token_revokes_only_this_token(op, rp):
    tokens = rp.tokens()
    assert revoke(rp, tokens["access_token"]).status == 200
    assert not op.is_token_active(tokens["access_token"])
    assert op.is_token_active(tokens["refresh_token"])


def test_revoking_a_used_refresh_token_revokes_its_successors(op, rp):
    first = rp.tokens()
    second = rp.refresh(first["refresh_token"]).json
    assert op.is_token_active(second["access_token"])
    assert revoke(rp, first["refresh_token"]).status == 200
    assert op.active_tokens == []


def test_revoking_an_unknown_or_revoked_token_succeeds(rp):
    assert revoke(rp, "nonsense").status == 200
    token = rp.tokens()["refresh_token"]
    assert [revoke(rp, token).status, revoke(rp, token).status] == [200, 200]


def test_revocation_without_token_or_by_another_client_is_refused(op, rp, other_rp):
    token = rp.tokens()["refresh_token"]
    assert rp.send("POST", "/revoke", {"token": token}).status == 401
    assert rp.send("POST", "/revoke", {}, rp.basic).json["error"] == "invalid_request"
    assert revoke(other_rp, token).json["error"] == "invalid_grant"
    assert rp.send("GET", f"/revoke?token={token}", headers=rp.basic).status == 405
    assert op.is_token_active(token)


# Introspection. Spec: RFC 7662


def introspect(rp, token):
    return rp.send("POST", "/introspect", {"token": token}, rp.basic)


def test_introspection_of_an_active_token_returns_its_details(op, rp):
    claims = introspect(rp, rp.tokens(scope="openid email")["access_token"]).json
    assert claims["active"] is True
    assert claims["sub"] == op.get_subject("amina", "portal")
    assert claims["scope"] == "openid email"
    assert claims["exp"] - claims["iat"] == 600


def test_introspection_of_an_inactive_foreign_or_unknown_token_returns_only_active_false(rp, other_rp):
    tokens = rp.tokens()
    assert introspect(rp, tokens["refresh_token"]).json["active"] is True
    assert introspect(other_rp, tokens["refresh_token"]).json == {"active": False}
    revoke(rp, tokens["refresh_token"])
    assert introspect(rp, tokens["access_token"]).json == {"active": False}
    assert introspect(rp, "nonsense").json == {"active": False}
    assert rp.send("POST", "/introspect", {"token": "x"}).status == 401
    assert introspect(rp, "").json["error"] == "invalid_request"


# Subjects. Spec: OIDC Core 8.1


def clients():
    return [
        Client("one", "s", ["https://same.example/a"]),
        Client("two", "s", ["https://same.example/b"]),
        Client("three", "s", ["https://x.example/", "https://y.example/"], sector_identifier="same.example"),
        Client("four", "s", ["https://other.example/"]),
    ]


def test_subject_depends_on_sector_and_user():
    op = DemoProvider(clients(), [Account("a", "p"), Account("b", "p")])
    subjects = [op.get_subject("a", name) for name in ("one", "two", "three", "four")]
    assert subjects[0] == subjects[1] == subjects[2] != subjects[3]
    assert op.get_subject("b", "one") != subjects[0]


def test_subject_depends_on_the_salt():
    accounts = [Account("a", "p")]
    subjects = [
        DemoProvider(clients(), accounts, pairwise_salt=salt).get_subject("a", "one") for salt in (b"", b"", b"s", b"s")
    ]
    assert len(set(subjects)) == 3


def test_public_subject_is_the_same_for_all_clients(rp_of):
    op = DemoProvider(clients(), [Account("a", "p")], subject_type="public")
    assert len({op.get_subject("a", name) for name in ("one", "two", "three", "four")}) == 1
    with op.running():
        metadata = rp_of(op=op).send("GET", "/.well-known/openid-configuration").json
    assert metadata["subject_types_supported"] == ["public"]


def test_client_with_two_hosts_needs_a_sector_identifier():
    with pytest.raises(ValueError, match="sector_identifier"):
        DemoProvider([Client("x", "s", ["https://x.example/", "https://y.example/"])], [])
