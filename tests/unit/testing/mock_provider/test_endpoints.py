"""Discovery, keys, UserInfo, revocation, introspection."""

import json
from datetime import timedelta

import jwt
import pytest

from django_phi_oidc.testing.mock_provider import Account, Client, DemoProvider


def test_discovery_names_the_issuer_and_endpoints_that_answer(op, rp):
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


def test_jwks_holds_public_keys_of_four_algorithms_alone(rp):
    keys = rp.send("GET", "/jwks").json["keys"]
    assert {key["alg"] for key in keys} == {"PS256", "ES256", "EdDSA", "RS256"}
    assert len({key["kid"] for key in keys}) == 4
    assert all(key["use"] == "sig" and not {"d", "p", "q", "k"} & set(key) for key in keys)


def test_rotate_keys_signs_with_new_keys_and_keeps_the_old_published_until_withdrawn(op, rp):
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
def test_userinfo_returns_the_granted_claims_and_no_other(op, rp, method):
    claims = json.dumps({"userinfo": {"birthdate": None, "sub": None, "iss": None}, "id_token": {"gender": None}})
    answer = userinfo(rp, rp.tokens(scope="openid address", claims=claims)["access_token"], method)
    assert answer.status == 200
    assert set(answer.json) == {"sub", "address", "birthdate"}
    assert answer.json["sub"] == op.get_subject("amina", "portal")
    assert answer.headers["cache-control"] == "no-store"


def test_userinfo_scopes_stand_for_their_claims(rp):
    found = userinfo(rp, rp.tokens(scope="openid profile email phone")["access_token"]).json
    assert found["birthdate"] == "1984-03-09"
    assert found["email_verified"] is True
    assert found["phone_number"].startswith("+46")
    assert "address" not in found


def test_userinfo_without_a_live_access_token_in_the_header_is_refused(op, rp, clock):
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
def test_userinfo_is_signed_for_a_client_that_registered_so(op, rp, alg):
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


def test_userinfo_refused_is_not_signed(op, rp):
    op.register_client(Client("portal", rp.secret, [rp.redirect_uri], userinfo_signed_response_alg="ES256"))
    answer = userinfo(rp, "nonsense")
    assert (answer.status, answer.body) == (401, b"")


# Revocation. Spec: RFC 7009


def revoke(rp, token, **more):
    return rp.send("POST", "/revoke", {"token": token, **more}, rp.basic)


def test_revoke_refresh_token_kills_all_tokens_of_the_grant(op, rp):
    first, second = rp.tokens(), rp.tokens()
    assert revoke(rp, first["refresh_token"], token_type_hint="access_token").status == 200
    assert not op.is_token_active(first["access_token"])
    assert not op.is_token_active(first["refresh_token"])
    assert op.is_token_active(second["access_token"])


def test_revoke_access_token_kills_it_alone(op, rp):
    tokens = rp.tokens()
    assert revoke(rp, tokens["access_token"]).status == 200
    assert not op.is_token_active(tokens["access_token"])
    assert op.is_token_active(tokens["refresh_token"])


def test_revoke_spent_refresh_token_kills_its_successors(op, rp):
    first = rp.tokens()
    second = rp.refresh(first["refresh_token"]).json
    assert op.is_token_active(second["access_token"])
    assert revoke(rp, first["refresh_token"]).status == 200
    assert op.active_tokens == []


def test_revoke_unknown_or_dead_token_is_200(rp):
    assert revoke(rp, "nonsense").status == 200
    token = rp.tokens()["refresh_token"]
    assert [revoke(rp, token).status, revoke(rp, token).status] == [200, 200]


def test_revoke_without_token_or_client_or_by_another_client_is_refused(op, rp, other_rp):
    token = rp.tokens()["refresh_token"]
    assert rp.send("POST", "/revoke", {"token": token}).status == 401
    assert rp.send("POST", "/revoke", {}, rp.basic).json["error"] == "invalid_request"
    assert revoke(other_rp, token).json["error"] == "invalid_grant"
    assert rp.send("GET", f"/revoke?token={token}", headers=rp.basic).status == 405
    assert op.is_token_active(token)


# Introspection. Spec: RFC 7662


def introspect(rp, token):
    return rp.send("POST", "/introspect", {"token": token}, rp.basic)


def test_introspect_live_token_of_the_client_tells_what_it_is(op, rp):
    found = introspect(rp, rp.tokens(scope="openid email")["access_token"]).json
    assert found["active"] is True
    assert found["sub"] == op.get_subject("amina", "portal")
    assert found["scope"] == "openid email"
    assert found["exp"] - found["iat"] == 600


def test_introspect_dead_foreign_or_unknown_token_tells_nothing_else(rp, other_rp):
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


def test_subject_is_one_for_a_sector_and_another_elsewhere_and_for_others():
    op = DemoProvider(clients(), [Account("a", "p"), Account("b", "p")])
    subjects = [op.get_subject("a", name) for name in ("one", "two", "three", "four")]
    assert subjects[0] == subjects[1] == subjects[2] != subjects[3]
    assert op.get_subject("b", "one") != subjects[0]


def test_subject_of_another_provider_differs_unless_the_salt_is_the_same():
    people = [Account("a", "p")]
    subjects = [
        DemoProvider(clients(), people, pairwise_salt=salt).get_subject("a", "one") for salt in (b"", b"", b"s", b"s")
    ]
    assert len(set(subjects)) == 3


def test_subject_public_is_one_for_all_and_advertised_so(rp_of):
    op = DemoProvider(clients(), [Account("a", "p")], subject_type="public")
    assert len({op.get_subject("a", name) for name in ("one", "two", "three", "four")}) == 1
    with op.running():
        metadata = rp_of(op=op).send("GET", "/.well-known/openid-configuration").json
    assert metadata["subject_types_supported"] == ["public"]


def test_client_with_two_hosts_and_no_sector_identifier_is_not_accepted():
    with pytest.raises(ValueError, match="sector_identifier"):
        DemoProvider([Client("x", "s", ["https://x.example/", "https://y.example/"])], [])
